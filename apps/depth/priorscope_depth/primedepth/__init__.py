"""PrimeDepth: depth from what a frozen text-to-image network knows of a picture after one look at it."""
