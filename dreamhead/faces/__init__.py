"""Detection, canonical pose, crops, landmark images, masks and paste back."""
