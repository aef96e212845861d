import pytest

from trainers.reference import DOCS, PAGES, page


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_about_settings_is_as_the_settings_are(language):
    written = (DOCS / PAGES[language]).read_text(encoding="utf-8")
    assert written == page(language), "run: python -m trainers.reference"
