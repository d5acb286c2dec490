"""What a whole training run costs elsewhere: a model, from measured numbers.

Nothing here was measured but what `estimate` is given. Every assumption has its
name, and is printed beside the table.
"""
from typing import List, NamedTuple, Optional, Sequence, Tuple

from deeplab.benchmark import cases

STEPS = 200000
_SECONDS_AN_HOUR = 3600.0
_FLOAT32_BYTES = 4


class Device(NamedTuple):
  """One kind of processor, by assumption."""
  name: str
  # float32 arithmetic that its maker names, in GFLOP/s.
  peak: float
  # The share of it that a step reaches.
  share: float


class Link(NamedTuple):
  """What joins devices, by assumption."""
  name: str
  # Bytes a second, in each direction.
  bandwidth: float
  # Seconds for one message to the next device.
  latency: float


class Layout(NamedTuple):
  """Devices that compute one step together."""
  name: str
  device: Device
  # Devices, each with a batch of its own.
  devices: int
  # The slowest link of the ring; None: there is one device.
  link: Optional[Link] = None


class Cost(NamedTuple):
  """One line of the table."""
  layout: str
  steps: int
  compute: float
  exchange: float
  hours: float
  images_per_second: float


# A share of a third is what this suite reaches on the processor that it is
# measured on; convolutions as narrow as MobileNet's reach less on a GPU.
GPU = Device('a GPU of 19.5 TFLOP/s in float32, of which a step reaches 15 %',
             19500.0, 0.15)
INSIDE = Link('links of 50 GB/s between GPUs, 20 us a message', 50e9, 20e-6)
BETWEEN = Link('10 Gbit/s between hosts, 100 us a message', 1.25e9, 100e-6)
LAYOUTS = (
    Layout('1 GPU', GPU, 1),
    Layout('1 host, 8 GPUs', GPU, 8, INSIDE),
    Layout('4 hosts, 1 GPU each', GPU, 4, BETWEEN),
)


def exchanged_bytes(gradients: int, devices: int) -> float:
  """Bytes that each device sends in a step, by a ring all-reduce.

  Every device sends, and receives, 2 (N - 1) / N of the gradients.

  Args:
    gradients: number of float32 gradients.
    devices: number of devices, N.
  """
  return 2 * (devices - 1) / devices * gradients * _FLOAT32_BYTES


def estimate(layouts: Sequence[Layout], *, batch: int,
             gradients: int) -> List[Cost]:
  """Estimates a run over the images of the documented one.

  The documented run has STEPS steps; N devices with a batch each need an N-th
  of them for as many images. Exchange is added to compute, although it may
  overlap.

  Args:
    layouts: what to estimate it for.
    batch: images of a device in a step.
    gradients: number of float32 gradients.
  """
  found = []
  for layout in layouts:
    flop = cases.GIGAFLOP_PER_IMAGE * cases.PASSES_OF_A_STEP * batch
    compute = flop / (layout.device.peak * layout.device.share)
    exchange = 0.0
    if layout.link:
      exchange = (
          exchanged_bytes(gradients, layout.devices) / layout.link.bandwidth +
          2 * (layout.devices - 1) * layout.link.latency)
    steps = -(-STEPS // layout.devices)
    found.append(Cost(
        layout.name, steps, compute, exchange,
        steps * (compute + exchange) / _SECONDS_AN_HOUR,
        batch * layout.devices / (compute + exchange)))
  return found


def assumptions(layouts: Sequence[Layout]) -> Tuple[str, ...]:
  """Names what the estimates of layouts assume, each thing once."""
  named = []
  for layout in layouts:
    named += [layout.device.name] + ([layout.link.name] if layout.link else [])
  return tuple(dict.fromkeys(named))
