"""The configurations of a detector's folder and of an adapter's, as records of our own."""
