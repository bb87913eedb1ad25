"""The report opened and used in a real browser without a window."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from voxpool_pipelines.report import write_report

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1400,1000",
)


def program(package: str, *names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(
            f"{names[0]} is not installed; the report is tested in a real browser, so install the package {package} "
            f"(Debian: apt-get install {package})"
        )
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium", "chromium-browser", "google-chrome")
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=program("chromium-driver", "chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(finished_run, run)
    return write_report(run).html.as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    browser.get(address)
    return browser


def column(page: webdriver.Chrome, name: str) -> tuple[WebElement, int]:
    names = page.execute_script("return [...document.querySelectorAll('#variants thead th')].map((th) => th.innerText)")
    index = next(index for index, text in enumerate(names) if text.startswith(name))
    return page.find_element(By.CSS_SELECTOR, f"#variants thead th:nth-child({index + 1})"), index


def shown_values(page: webdriver.Chrome, index: int) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('#variants tbody tr')].map((row) => row.cells[arguments[0]].innerText)",
        index,
    )


def bring_into_view(page: webdriver.Chrome, element: WebElement) -> None:
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'})", element
    )


def press(page: webdriver.Chrome, header: WebElement) -> None:
    button = header.find_element(By.TAG_NAME, "button")
    bring_into_view(page, button)
    button.click()


def test_a_header_sorts_the_rows_as_numbers(page: webdriver.Chrome) -> None:
    header, index = column(page, "Parameters")
    before = shown_values(page, index)
    press(page, header)
    numbers = [int(text.replace("\u202f", "")) for text in shown_values(page, index)]
    assert numbers == sorted(numbers)
    assert shown_values(page, index) != before
    assert header.get_attribute("aria-sort") == "ascending"

    header, index = column(page, "s / volume")
    press(page, header)
    press(page, header)
    seconds = [float(text) for text in shown_values(page, index)]
    assert seconds == sorted(seconds, reverse=True)
    assert len(seconds) == 16
    assert header.get_attribute("aria-sort") == "descending"
    sorted_columns = page.find_elements(By.CSS_SELECTOR, "#variants th:not([aria-sort=none])[aria-sort]")
    assert len(sorted_columns) == 1


def test_missing_values_stay_at_the_end_in_both_directions(page: webdriver.Chrome) -> None:
    header, index = column(page, "Oracle")
    for _ in range(2):
        press(page, header)
        values = shown_values(page, index)
        assert values[-4:] == ["–"] * 4
        assert "–" not in values[:-4]
    assert values[0] > values[11]


def test_sorting_by_keyboard(page: webdriver.Chrome) -> None:
    header, index = column(page, "Foreground")
    header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    means = [float(text.split(" ")[0]) for text in shown_values(page, index)]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_other_measures_can_be_chosen(page: webdriver.Chrome) -> None:
    def captions() -> list[str]:
        found = page.find_elements(By.CSS_SELECTOR, "#table1 caption")
        return [caption.text for caption in found if caption.is_displayed()]

    assert captions() == ["Dice, foreground mean (%)"]
    page.find_element(By.XPATH, "//section[@id='table1']//label[normalize-space()='HD95']").click()
    assert captions() == ["HD95, foreground mean (mm)"]


def pictures(page: webdriver.Chrome) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('#viewer img')].map((image) => image.currentSrc || image.src)"
    )


def wait_for_pictures(page: webdriver.Chrome) -> list[int]:
    return page.execute_async_script(
        """const done = arguments[arguments.length - 1];
        const images = [...document.querySelectorAll('#viewer img')];
        Promise.all(images.map((image) => image.decode())).then(
          () => done(images.map((image) => image.naturalWidth)), () => done([]));"""
    )


def test_the_slider_moves_through_the_slices(page: webdriver.Chrome) -> None:
    assert wait_for_pictures(page) == [20] * 7
    slider = page.find_element(By.ID, "slice")
    label = page.find_element(By.ID, "slice-label")
    first, text = pictures(page), label.text
    slider.send_keys(Keys.ARROW_RIGHT)
    second = pictures(page)
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert label.text != text
    assert int(label.text.split(" ")[0]) > int(text.split(" ")[0])
    assert slider.get_attribute("aria-valuetext") == f"slice {label.text}"
    assert wait_for_pictures(page) == [20] * 7
    for key in (Keys.HOME, Keys.END):
        slider.send_keys(key)
        assert wait_for_pictures(page) == [20] * 7
    slider.send_keys(Keys.HOME)
    slider.send_keys(*[Keys.ARROW_RIGHT] * 3)
    again = pictures(page)
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
    assert pictures(page) == again


def test_case_and_overlay_can_be_chosen(page: webdriver.Chrome) -> None:
    data = json.loads(page.find_element(By.ID, "slice-data").get_attribute("textContent") or "")
    choice = Select(page.find_element(By.ID, "case"))
    assert len(choice.options) == len(data["sets"]) == 6
    bring_into_view(page, page.find_element(By.ID, "viewer"))
    choice.select_by_index(3)
    wanted = data["sets"][3]
    at = wanted["slices"][int(page.find_element(By.ID, "slice").get_attribute("value") or "")]
    files = [src.removeprefix("data:image/png;base64,") for src in pictures(page)]
    image, truth, base, best = at["image"], *at["classes"]
    assert files == [image, image, truth, image, base, image, best]
    alt = page.find_element(By.CSS_SELECTOR, "#viewer figure:last-of-type .anatomy").get_attribute("alt") or ""
    assert wanted["case"] in alt
    assert page.find_elements(By.CSS_SELECTOR, "#viewer .score")[-1].text == " · ".join(wanted["scores"][1])

    page.find_element(By.XPATH, "//label[normalize-space()='errors only']").click()
    files = [src.removeprefix("data:image/png;base64,") for src in pictures(page)]
    assert [files[4], files[6]] == at["errors"]
    assert not page.find_element(By.CSS_SELECTOR, "#viewer [data-layer='0'] .overlay").is_displayed()

    page.find_element(By.ID, "opacity").send_keys(Keys.HOME)
    overlay = page.find_element(By.CSS_SELECTOR, "#viewer [data-layer='2'] .overlay")
    assert overlay.value_of_css_property("opacity") == "0"


def test_letters_stand_on_their_sides(page: webdriver.Chrome) -> None:
    picture = page.find_element(By.CSS_SELECTOR, "#viewer .picture")
    bring_into_view(page, picture)
    places = {
        letter.text: (letter.rect["x"] + letter.rect["width"] / 2, letter.rect["y"] + letter.rect["height"] / 2)
        for letter in picture.find_elements(By.CSS_SELECTOR, ".side")
    }
    assert places["R"][0] < places["A"][0] < places["L"][0]
    assert places["A"][1] < places["L"][1] < places["P"][1]


def test_a_dot_says_which_case_it_is(page: webdriver.Chrome) -> None:
    dot = page.find_element(By.CSS_SELECTOR, "#boxes circle.dot")
    bring_into_view(page, dot)
    webdriver.ActionChains(page).move_to_element(dot).perform()
    tip = page.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert tip.text.startswith("case0")
    assert "%" in tip.text


def test_light_and_dark(page: webdriver.Chrome) -> None:
    def ground() -> str:
        return page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")

    grounds = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        grounds[scheme] = ground()
    assert grounds["light"] != grounds["dark"]
    page.find_element(By.ID, "theme").click()
    assert ground() == grounds["light"]
    page.find_element(By.ID, "theme").click()
    assert ground() == grounds["dark"]


@pytest.mark.parametrize("width", [360, 800, 1800])
def test_the_page_never_scrolls_sideways(page: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_of_the_data_are_text(page: webdriver.Chrome) -> None:
    assert page.find_element(By.TAG_NAME, "h1").text == "Shells & <pockets>"
    assert page.title == "Shells & <pockets> · voxpool report"


def test_a_silent_console_and_no_requests(page: webdriver.Chrome, address: str) -> None:
    page.get_log("browser")
    page.get_log("performance")
    page.get(address)
    wait_for_pictures(page)
    page.find_element(By.ID, "slice").send_keys(Keys.ARROW_RIGHT)
    wait_for_pictures(page)
    assert page.get_log("browser") == []
    messages = [json.loads(each["message"])["message"] for each in page.get_log("performance")]
    requested = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert address in requested
    assert [url for url in requested if url != address and not url.startswith("data:")] == []
