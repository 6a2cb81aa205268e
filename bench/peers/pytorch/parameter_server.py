"""A peer's parameter server: two processes of one host, one pushes float32 gradients and pulls parameters.

The server applies p -= rate * g, as ours does. Requests come as JSON lines on stdin ({"bytes", "seconds"}) and are
answered with {"pushPullGBps", "roundTripsPerSecond"}; the first line out names the library and its version.

    parameter_server.py rpc | gloo | tensorflow
"""
import json
import os
import socket
import subprocess
import sys
import threading
import time

RATE = 1e-6


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(exchange, seconds):
    """exchange() is one push and one pull; two calls warm up."""
    exchange()
    exchange()
    count = 0
    begin = time.perf_counter()
    while True:
        exchange()
        count += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds and count >= 3:
            return count / elapsed


def answer(exchange_of, ping):
    for line in sys.stdin:
        request = json.loads(line)
        if request["bytes"] == 0:
            print(json.dumps({"roundTripsPerSecond": measure(ping, request["seconds"])}), flush=True)
            continue
        rate = measure(exchange_of(request["bytes"] // 4), request["seconds"])
        print(json.dumps({"pushPullGBps": rate * 2 * request["bytes"] / 1e9}), flush=True)


# --- torch.distributed.rpc over TensorPipe ---

PARAMETERS = {}


def rpc_allocate(n):
    import torch
    PARAMETERS.clear()
    PARAMETERS["p"] = torch.zeros(n)


def rpc_push(g):
    PARAMETERS["p"].add_(g, alpha=-RATE)


def rpc_pull():
    return PARAMETERS["p"]


def rpc_ping():
    return None


def rpc(rank, port):
    import torch
    import torch.distributed.rpc as api
    options = api.TensorPipeRpcBackendOptions(init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=120)
    api.init_rpc("server" if rank == 0 else "worker", rank=rank, world_size=2, rpc_backend_options=options)
    if rank == 1:
        print(json.dumps({"name": "torch.distributed.rpc", "version": torch.__version__}), flush=True)

        def exchange_of(n):
            api.rpc_sync("server", rpc_allocate, (n,))
            gradient = torch.full((n,), 0.5)

            def exchange():
                api.rpc_sync("server", rpc_push, (gradient,))
                api.rpc_sync("server", rpc_pull)
            return exchange
        answer(exchange_of, lambda: api.rpc_sync("server", rpc_ping))
    api.shutdown()


# --- gloo send and recv ---

def gloo(rank, port):
    import torch
    import torch.distributed as api
    api.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    size = torch.zeros(1, dtype=torch.int64)
    if rank == 0:
        parameters = gradient = torch.zeros(0)
        while True:
            api.recv(size, 1)
            n = int(size)
            if n < 0:
                return
            if n == 0:
                api.send(size, 1)
                continue
            if n != parameters.numel():
                parameters, gradient = torch.zeros(n), torch.zeros(n)
            api.recv(gradient, 1)
            parameters.add_(gradient, alpha=-RATE)
            api.send(parameters, 1)
    print(json.dumps({"name": "gloo send/recv", "version": torch.__version__}), flush=True)

    def exchange_of(n):
        gradient, parameters = torch.full((n,), 0.5), torch.zeros(n)
        head = torch.tensor([n])

        def exchange():
            api.send(head, 0)
            api.send(gradient, 0)
            api.recv(parameters, 0)
        return exchange
    ping_head = torch.zeros(1, dtype=torch.int64)

    def ping():
        api.send(ping_head, 0)
        api.recv(ping_head, 0)
    answer(exchange_of, ping)
    api.send(torch.tensor([-1]), 0)


# --- TensorFlow's ParameterServerStrategy: its cluster, its variable placement, its transport (gRPC) ---

def tensorflow(rank, ports):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    cluster = tf.train.ClusterSpec({"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{ports[1]}"], "ps": [f"127.0.0.1:{ports[2]}"]})
    role = ["chief", "worker", "ps"][rank]
    if role != "chief":
        tf.distribute.Server(cluster, job_name=role, task_index=0, protocol="grpc").join()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, task_type="chief", task_id=0, rpc_layer="grpc")
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    print(json.dumps({"name": "TensorFlow ParameterServerStrategy", "version": tf.__version__}), flush=True)

    def exchange_of(n):
        with strategy.scope():
            parameters = tf.Variable(tf.zeros([n]))

        @tf.function
        def step():
            gradient = tf.fill([n], 0.5)
            parameters.assign_sub(RATE * gradient)
            return tf.reduce_sum(parameters.read_value()[:1])

        def exchange():
            coordinator.schedule(step)
            coordinator.join()
        return exchange

    @tf.function
    def nothing():
        return tf.constant(0)

    def ping():
        coordinator.schedule(nothing)
        coordinator.join()
    answer(exchange_of, ping)
    os._exit(0)


def main():
    kind, *rest = sys.argv[1:]
    if rest:  # a process that this one started: it ends with this one, however that ends
        rank, *ports = map(int, rest)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    else:
        rank, ports = None, [free_port() for _ in range(3)]
    if kind == "tensorflow":
        children = [] if rest else [start(kind, r, ports) for r in (1, 2)]
        work = lambda: tensorflow(rank or 0, ports)
    else:
        children = [] if rest else [start(kind, 0, ports[:1])]
        work = lambda: {"rpc": rpc, "gloo": gloo}[kind](1 if rank is None else rank, ports[0])
    try:
        work()
    finally:
        for child in children:
            child.kill()


def start(kind, rank, ports):
    return subprocess.Popen([sys.executable, __file__, kind, str(rank), *map(str, ports)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
