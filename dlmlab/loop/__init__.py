"""The parts of the decoding loop."""
