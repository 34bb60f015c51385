"""Price every way to ask and choose the cheapest that keeps the constraints."""
