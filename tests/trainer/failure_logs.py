"""Excerpts of logs of runs that failed, each with where its words are from.

`real`: printed by SimpleTuner 4.8.0 (torch 2.11.0, accelerate) on a CPU, as it was made to fail, paths shortened.
The others: the message as the named library has it in its source, in a traceback's form.
"""

# ruff: noqa: E501  # lines as they were printed

ENCODING = "[RANK 0] 2026-11-24 12:04:36,1 [INFO] (id=b-64-e03c2a22) Initialise text embed pre-computation\n"
CACHING = "[RANK 0] 2026-11-24 12:04:36,6 [INFO] (id=b-64-e03c2a22) Creating VAE latent cache: vae_cache_dir='/c'\n"
LOADING = "[RANK 0] 2026-11-24 12:04:40,1 [INFO] Loading diffusion model from /base\n"
QUANTIZING = "[RANK 0] 2026-11-24 12:04:44,1 [INFO] Quantising FluxTransformer2DModel. Using int8-quanto.\n"
VALIDATING = "Processing validation prompts:   0%|          | 0/8 [00:00<?, ?it/s]\n"
STEP = "Epoch 1/1, Steps:  30%|###       | 3/10 [00:03<00:07,  1.00s/it, lr=1e-4, step_loss=0.25]\r"
NEXT_STEP = "Epoch 1/1, Steps:  40%|####      | 4/10 [00:04<00:06,  1.00s/it, lr=1e-4, step_loss=0.24]\n"
NAN_STEP = "Epoch 1/1, Steps:  40%|####      | 4/10 [00:04<00:06,  1.00s/it, lr=1e-4, step_loss=nan]\n"
FRAMES = 'Traceback (most recent call last):\n  File "/env/simpletuner/train.py", line 285, in <module>\n    run()\n'
# real: accelerate's launcher, after its child ended; it closes every failed log.
LAUNCHER = """Traceback (most recent call last):
  File "/env/bin/accelerate", line 10, in <module>
    sys.exit(main())
  File "/env/accelerate/commands/launch.py", line 993, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['/env/bin/python', '/env/simpletuner/train.py']' {how}.
I1124 12:04:41.269000 6572 simpletuner/helpers/logging.py:425] TorchDynamo attempted to trace the following frames: [
I1124 12:04:41.270000 6572 simpletuner/helpers/logging.py:425] Function, Runtimes (s)
"""
EXIT_1 = LAUNCHER.format(how="returned non-zero exit status 1")
SIGKILL = LAUNCHER.format(how="died with <Signals.SIGKILL: 9>")  # real: kill -9 of the trainer
SIGSEGV = LAUNCHER.format(how="died with <Signals.SIGSEGV: 11>")

# torch, c10/cuda/CUDACachingAllocator.cpp
CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 11.99 GiB of "
    "which 61.00 MiB is free. Including non-PyTorch memory, this process has 11.90 GiB memory in use.\n"
)

# cause → the line that is recognised
LINES: dict[str, list[str]] = {
    "gpu-memory": [
        CUDA_OOM,
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 23.69 GiB total)\n",  # 2.0
        "RuntimeError: CUDA error: out of memory\n",
        "Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp\n",  # bitsandbytes
    ],
    "no-compiler": [
        # Triton 3.6's runtime/build.py; gcc 12
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set "
        "triton.knobs.build.impl.\n",
        "cuda_utils.c:6:10: fatal error: Python.h: No such file or directory\n",
    ],
    "host-memory": [
        # real: torch.empty(1 << 50)
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)\n",
        "MemoryError\n",
        "OSError: [Errno 12] Cannot allocate memory\n",
    ],
    "shared-memory": [
        # torch/utils/data/_utils/signal_handling.py
        "RuntimeError: DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that dataloader's workers "
        "are out of shared memory. Please try to raise your shared memory limit.\n",
    ],
    "disk-full": [
        "OSError: [Errno 28] No space left on device\n",  # real: Python to /dev/full
        "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598\n",  # real: torch.save there
        "safetensors._safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on device (os "
        "error 28)\n",
        "OSError: [Errno 122] Disk quota exceeded\n",
    ],
    "gated-model": [
        # huggingface_hub/errors.py and utils/_http.py; transformers/utils/hub.py
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. (Request ID: Root=1-2)\n",
        "Cannot access gated repo for url https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/config.json.\n",
        "OSError: You are trying to access a gated repo.\n",
    ],
    "bad-token": ["huggingface_hub.errors.HfHubHTTPError: 401 Client Error: Unauthorized for url\n"],
    "no-such-model": [
        "huggingface_hub.errors.RepositoryNotFoundError: Repository Not Found for url: https://huggingface.co/api/x.\n",
        "OSError: a/b is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\n",
    ],
    "hub-unreachable": [
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cache\n",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache\n",
    ],
    "driver": [
        # torch/csrc/cuda/Module.cpp; the CUDA runtime
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver\n",
        "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version\n",
    ],
    "gpu-unsupported": ["RuntimeError: CUDA error: no kernel image is available for execution on the device\n"],
    "no-gpu": [
        # real: torch without a driver
        "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a "
        "driver from http://www.nvidia.com/Download/index.aspx\n",
        "RuntimeError: No CUDA GPUs are available\n",
        "AssertionError: Torch not compiled with CUDA enabled\n",
    ],
    "port": [
        # real: torch.distributed.TCPStore on a port that is used
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: "
        "29777, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use\n",
        "OSError: [Errno 98] Address already in use\n",
        # accelerate/utils/launch.py
        "ConnectionError: Tried to launch distributed communication on port `29500`, but another process is utilizing it.\n",
    ],
    "no-images": [
        # real
        "ValueError: (id=x-64-0) Dataset produced no usable samples. This typically happens when:\n",
        "ValueError: Dataset configuration will produce zero usable batches.\n",  # 3.0.6 and later
        "Exception: No images were discovered by the bucket manager in the dataset: a.\n",  # 1.2
    ],
    "checkpoint": [
        # real: optimizer.bin cut off
        "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory. This is an "
        "internal miniz error.\n",
        # torch/optim/optimizer.py, as in SimpleTuner #1497
        "ValueError: loaded state dict contains a parameter group that doesn't match the size of optimizer's group\n",
        "ValueError: Dataset 'a' checkpoint batch_size=1 does not match current batch_size=2. Resume with the same\n",
    ],
    "damaged-file": [
        # real: safetensors
        "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: invalid header length\n",
    ],
    "nan": ["ValueError: (id=a) Deleted cache file /c/1.pt: contains NaN or Inf values\n"],
    "no-modules": ["ValueError: optimizer got an empty parameter list\n"],  # torch/optim/optimizer.py
    "options": ["train.py: error: unrecognized arguments: --no_such_option=3\n"],
    "trackers": ["ValueError: value should be one of int, float, str, bool, or torch.Tensor\n"],
    "import": [
        "ModuleNotFoundError: No module named 'diffusers.models.controlnet'\n",
        "ImportError: cannot import name 'Qwen3VLCausalLMOutputWithPast' from 'transformers'\n",
        "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory\n",
    ],
    "open-files": ["OSError: [Errno 24] Too many open files: '/c/1.pt'\n"],
    "permission": ["PermissionError: [Errno 13] Permission denied: '/c/1.pt'\n"],
}
