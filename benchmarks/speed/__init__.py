"""What `benchmarks/sampling.py` is made of; each module imports from those above it alone.

- `device`: the GPU or CPU: clocks, memory, and whether it still works.
- `results`: lines of results.jsonl, and what an earlier process left in it.
- `budget`: a time limit for each variant, and a new process when the GPU is lost.
- `flux`: FLUX.1-dev with random weights: transformer, VAE, text encoders.
- `pipeline`: diffusers' pipeline around whichever transformer and VAE are measured.
- `run`: all of these together, and what variants hand on to later ones.
- `profiling`: a step or a call, kernel by kernel.
- `timing`: full pictures of a batch size, timed and compared with diffusers' own.
- `products`, `kernels`, `decoders`: parts of a step, and the VAE, alone.
- `diffusers_ways`, `fluxkit_ways`: whole ways to make pictures.
"""
