"""The demonstration: samples made from what packages ship, dubbed by the batch job."""
