"""Ultrasound: from channel data to images, and haze apart from tissue. For research use only."""
