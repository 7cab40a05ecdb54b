"""What stand-ins for the trainer do, as code that the fixture `trainer` runs."""

import threading

from tests.commands.test_train import BAR, FINISH, SAVE

STEP = f"""
def step(number, loss):
    bar = {BAR!r}.format(step=number, total=10).replace("step_loss=0.25", f"step_loss={{loss}}")
    print(bar, end="\\r", flush=True)
"""
POST = """
import urllib.request
def post(payload):
    url = json.loads(Path(config["--webhook_config"]).read_text())["callback_url"]
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=60).close()
"""
SIGNALS = """
def wait_for(counter):
    while not json.loads(Path(os.environ["SIMPLETUNER_ACCELERATE_SIGNAL_FILE"]).read_text()).get(counter):
        time.sleep(0.05)
"""
# Trains three steps, saves the fourth when it is asked to, then would go on for a minute.
PATIENT = (
    SAVE
    + STEP
    + SIGNALS
    + """
for number in (1, 2, 3):
    step(number, number / 10)
Path("up").touch()
wait_for("manual_checkpoint")
time.sleep(0.3)
save(4)
time.sleep(60)
"""
)
# Trains three steps and goes on, whatever it is asked.
DEAF = SAVE + STEP + "for number in (1, 2, 3):\n    step(number, number / 10)\nPath('up').touch()\ntime.sleep(60)\n"
__all__ = ["DEAF", "FINISH", "PATIENT", "POST", "SAVE", "SIGNALS", "STEP", "wait_until"]


def wait_until(condition, what: str, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"never happened: {what}")
