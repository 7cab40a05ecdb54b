from fluxkit.trainer.uv import DownloadReader, Downloads

# As uv 0.13.9 wrote it where stderr was no terminal.
SAID = """Using Python 3.12.1 environment at: cudaenv
Resolved 238 packages in 12.65s
Downloading torch (506.1MiB)
Downloading nvidia-cublas (403.5MiB)
   Building deepspeed==0.19.5
 Downloaded torch
 Downloaded something-small
Prepared 238 packages in 39.32s
Installed 238 packages in 1.73s
 + torch==2.11.0"""


def test_uvs_lines_become_bytes_that_are_here_and_bytes_announced() -> None:
    reader = DownloadReader()
    seen = [now for line in SAID.splitlines() if (now := reader.read(line))]
    torch, cublas = int(506.1 * 2**20), int(403.5 * 2**20)
    assert seen == [
        Downloads(238, 0, 0),
        Downloads(238, torch, 0),
        Downloads(238, torch + cublas, 0),
        Downloads(238, torch + cublas, torch),
    ]
