"""A network with YuNet's inputs and outputs that takes each red square of 32 × 32 pixels for a face."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_red_detector(path: Path) -> None:
    """Write it as ONNX; strides, names and shapes are those that OpenCV's `FaceDetectorYN` decodes."""
    nodes, weights, outputs = [], [], []
    for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            kernel = np.zeros((channels, 3, stride, stride), dtype=np.float32)
            if channels == 1 and stride == 32:
                kernel[0, 2] = 1 / (32 * 32 * 255)  # blue, green, red: the mean of red
            out = f"{name}_{stride}"
            weights += [
                numpy_helper.from_array(kernel, f"{out}_kernel"),
                numpy_helper.from_array(np.array([1, -1, channels], dtype=np.int64), f"{out}_shape"),
            ]
            size = [stride, stride]
            nodes += [
                helper.make_node("Conv", ["input", f"{out}_kernel"], [f"{out}_c"], kernel_shape=size, strides=size),
                helper.make_node("Transpose", [f"{out}_c"], [f"{out}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{out}_t", f"{out}_shape"], [out]),
            ]
            outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, None, channels]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, None, None])
    model = helper.make_model(
        helper.make_graph(nodes, "red", [picture], outputs, weights), opset_imports=[helper.make_opsetid("", 11)]
    )
    model.ir_version = 6
    onnx.save(model, path)
