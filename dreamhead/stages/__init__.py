"""The farm's steps on files: analyse, landmarks, render, finalize; no scheduler."""
