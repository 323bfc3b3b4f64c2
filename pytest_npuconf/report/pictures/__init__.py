"""Pictures of measured data, drawn with matplotlib as SVG."""
