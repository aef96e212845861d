// Words whose contrast with what lies behind them is below 4.5 (WCAG AA; 3 for large text).
() => {
  const parse = (c) => { const n = (c.match(/[\d.]+/g) ?? []).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const lum = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const bad = [];
  const walker = document.createTreeWalker(document.querySelector('.gradio-container'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
    if (!text || !e || e.closest('script, style, svg, [disabled], .ez-lightbox, .disabled, [aria-disabled=true]') || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue;
    let behind = [0, 0, 0, 0], picture = false;
    for (let p = e; p; p = p.parentElement) {
      const style = getComputedStyle(p);
      if (style.backgroundImage !== 'none') { picture = true; break; }
      const c = parse(style.backgroundColor);
      if (c[3] > 0) { behind = behind[3] ? over(behind, c) : c; if (behind[3] === 1) break; }
    }
    if (picture) continue;
    if (behind[3] < 1) behind = over(behind, document.body.classList.contains('dark') ? [15, 23, 42, 1] : [255, 255, 255, 1]);
    const style = getComputedStyle(e), ink = over(parse(style.color), behind), size = parseFloat(style.fontSize);
    const [a, b] = [lum(ink), lum(behind)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) bad.push(`${ratio.toFixed(2)} "${text.slice(0, 40)}" ${style.color} on ${behind}`);
  }
  return [...new Set(bad)];
}
