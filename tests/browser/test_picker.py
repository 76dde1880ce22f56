"""Check the lists of a PACS over a made-up source."""

from typing import Any

import pytest

from tests.browser.conftest import Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

STUDY, SERIES = "1.2.3", "1.2.3.4"


def answer(visit: Visit, *, images: int) -> list[str]:
    """Answer for a source with one study, one series and so many images; return the addresses that were asked."""
    asked: list[str] = []

    def listed(route: Any) -> None:
        address = route.request.url
        asked.append(address)
        if "/instances" in address:
            limit = int(address.partition("limit=")[2] or 100)
            entry = {"sop_class": None, "rows": 8, "columns": 8, "frames": None}
            data = [entry | {"instance": f"1.2.{at}", "number": at + 1} for at in range(min(images, limit))]
        elif "/series" in address:
            data = [{"series": SERIES, "modality": "CT", "number": 1, "description": "axial", "instance_count": images}]
        else:
            data = [{"name": "pacs", "store": False}]
        route.fulfill(json={"data": data})

    visit.page.route("**/v1/sources**", listed)
    return asked


@pytest.mark.parametrize(("images", "title"), [(300, "300 images"), (2000, "1,000 images, and perhaps more")])
def test_no_list_ends_silently(visit: Visiting, server: ServerProcess, images: int, title: str) -> None:
    opened = visit(server.url)
    page = opened.page
    answer(opened, images=images)
    page.reload()
    page.get_by_text("Choose from a PACS").click()
    page.locator("#pacs").get_by_label("Study UID").fill(STUDY)
    page.get_by_role("button", name="Find").click()
    page.get_by_role("button", name="Images: CT #1 axial").click()
    page.locator("#pacs h3", has_text="images").wait_for()
    assert page.locator("#pacs h3").inner_text() == title
    assert page.locator("#pacs .pick").count() == min(images, 1000)
