"""Adding a task is one file and one line: done here with the code that CONTRIBUTING.md shows."""

import re
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from tests.pictures import encoded
from tests.processes import ROOT, installation


def test_the_task_of_the_contributing_page_works(tmp_path: Path) -> None:
    file, line = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    source = tmp_path / "source"
    shutil.copytree(ROOT / "app", source / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "models").symlink_to(ROOT / "models")
    (source / "app" / "tasks" / "colour.py").write_text(file)
    registry = source / "app" / "tasks" / "__init__.py"
    before = registry.read_text()
    after = re.sub(r"^TASKS: .*\n", "from app.tasks.colour import Colour\n" + line, before, flags=re.MULTILINE)
    assert after != before
    registry.write_text(after)

    with installation(tmp_path, source=source) as service:
        service.start_api("app.api")
        service.start_worker("app.worker.main")
        service.wait_until_ready()

        picture = encoded(Image.new("RGB", (30, 20), (200, 100, 50)), "PNG")
        result: Any = service.result(service.submit("colour", picture))

        assert result["rgb"] == [200, 100, 50]
        assert result["model"]["name"] == "colour"
        assert "/colour" in service.http.get("/openapi.json").json()["paths"]
        assert service.post("colour", picture, shade="dark").status_code == 422
