// Evaluated in the page: what sticks out to the right, and what has no name for those who do not see it.
() => {
  const visible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getBoundingClientRect().width > 1;
  const scrolls = (element) => {
    for (let up = element.parentElement; up && !up.classList.contains('gradio-container'); up = up.parentElement) {
      if (['auto', 'scroll'].includes(getComputedStyle(up).overflowX)) return true;
    }
    return false;
  };
  const named = (element) => (element.getAttribute('aria-label') || element.title || element.textContent || '').trim()
    || element.labels?.length || element.closest('label') || element.getAttribute('aria-labelledby') || element.placeholder
    || [...element.querySelectorAll('img[alt], svg[aria-label]')].some((inner) => inner.alt || inner.ariaLabel);
  const about = (element) => element.outerHTML.slice(0, 120);
  const here = [...document.querySelectorAll('.gradio-container *')].filter(visible);
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    sticks_out: here.filter((element) => element.closest('[role=tabpanel], .ez-head') && element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element)).slice(0, 5).map(about),
    nameless: here.filter((element) => element.matches('.ez-part :is(button, input, select, textarea, a[href]), #ez-tabs button') && !named(element)).slice(0, 5).map(about),
    no_alt: here.filter((element) => element.matches('img') && !element.alt).slice(0, 5).map(about),
  };
}
