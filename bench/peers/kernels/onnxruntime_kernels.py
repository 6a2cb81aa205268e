# Owns the onnxruntime side of the kernel lines: one-node models, weights as initializers so that they are packed
# before the clock starts, input and output bound once.
import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from torch_kernels import serve


def session(node, x, weights, y, threads):
    graph = helper.make_graph(
        [node],
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(numpy.random.rand(*weights).astype(numpy.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    runner = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = runner.io_binding()
    binding.bind_cpu_input("x", numpy.random.rand(*x).astype(numpy.float32))
    binding.bind_output("y", "cpu")
    return lambda: runner.run_with_iobinding(binding)


def product(request):
    m, n, k = request["m"], request["n"], request["k"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return session(node, [m, k], [k, n], [m, n], request["threads"])


def convolution(request):
    n, h, c, oc, kernel, pad = (request[key] for key in ("n", "h", "c", "oc", "kernel", "pad"))
    o = h + 2 * pad - kernel + 1
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[kernel, kernel], pads=[pad] * 4)
    return session(node, [n, c, h, h], [oc, c, kernel, kernel], [n, oc, o, o], request["threads"])


if __name__ == "__main__":
    serve(onnxruntime.__version__, {"sgemm": product, "conv": convolution})
