"""A network to an ONNX graph of N x T steps."""
