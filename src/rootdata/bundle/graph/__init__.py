"""The graph of a bundle: modules that become one, graphs that are joined, the conversion to ONNX."""
