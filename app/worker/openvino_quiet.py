"""OpenVINO, imported so that it tells nobody: as it comes, it reports every import and conversion to Google Analytics.

It has a stub for where the package that does so is missing, and that is what it finds here.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported

import openvino  # noqa: E402

__all__ = ["openvino"]
