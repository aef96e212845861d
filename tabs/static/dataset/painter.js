// Drawing on a picture in a dialog: a mask by brush, or of the regions that a model found; a crop by its corners. What is
// painted is what a training learns. And a region to ask a model about. It knows pictures and pixels; what is drawn goes to
// `save`, by default as one edit of the dataset.

import { attempt, esc, t } from '../easel.js';

const LONGEST = 1024; // pixels of a mask's longer side while it is drawn
const COLOUR = '#22d3ee';
const RATIOS = { '—': 0, '1 : 1': 1, '3 : 4': 3 / 4, '2 : 3': 2 / 3, '9 : 16': 9 / 16, '4 : 3': 4 / 3, '3 : 2': 3 / 2, '16 : 9': 16 / 9 };

/** Opens the dialog for the picture that is chosen; resolves when it is closed. */
export function draw(d, what, save = (body) => d.change(what, body)) {
  const about = d.picture, box = document.createElement('dialog');
  if (!about) return undefined;
  box.className = 'ez-draw';
  box.setAttribute('aria-label', t(`draw.${what}`));
  const tools = what === 'mask' ? maskTools(about) : cropTools();
  box.innerHTML = `<div class="ez-bar">${tools}<span class="grow"></span><button data-do="save" class="primary">${t(what === 'region' ? 'draw.ask' : 'draw.save')}</button>${what === 'region' ? '' : `<button data-do="none">${t('draw.none')}</button>`}<button data-do="close">${t('close')}</button></div>
    <p class="sub">${t(`draw.${what}hint`)}</p><div class="stage" style="aspect-ratio:${about.width}/${about.height};width:min(86vw, calc(70vh * ${about.width / about.height}))"><img alt="${esc(about.name)}" src="${d.whole(about.id, about.hash)}"></div>`;
  document.body.append(box);
  const work = what === 'mask' ? new Mask(d, about, box) : what === 'region' ? new Region(about, box) : new Crop(about, box);
  box.addEventListener('click', async (event) => {
    const verb = event.target.closest('[data-do]')?.dataset.do;
    if (verb === 'close') box.close();
    else if (verb === 'save' || verb === 'none') {
      const body = { picture: about.id, ...(verb === 'none' ? work.nothing : work.value()) };
      if (await attempt(save(body))) box.close();
    } else if (verb) work[verb]?.(event.target.closest('[data-do]'));
  });
  box.addEventListener('keydown', (event) => { event.stopPropagation(); work.pressed?.(event); });
  box.addEventListener('close', () => box.remove());
  box.showModal();
  return undefined;
}

const button = (verb, more = '') => `<button data-do="${verb}" ${more}>${t(`draw.${verb}`)}</button>`;

function maskTools(about) {
  const labels = [...new Set(about.regions.map((region) => region.label))];
  return `${button('brush', 'aria-pressed="true"')}${button('eraser', 'aria-pressed="false"')}<label class="check">${t('draw.size')}<input type="range" min="2" max="300" value="60"></label>
    ${button('invert')}${button('clear')}${button('back')}${labels.map((label) => `<button data-do="region" data-label="${esc(label)}">+ ${esc(label)}</button>`).join('')}`;
}

const cropTools = () => `<label class="check">${t('draw.ratio')}<select>${Object.keys(RATIOS).map((name) => `<option>${name}</option>`).join('')}</select></label><span class="n"></span>`;

class Mask {
  nothing = { png: '' };

  constructor(d, about, box) {
    Object.assign(this, { about, box, erasing: false, steps: [] });
    const scale = Math.min(1, LONGEST / Math.max(about.width, about.height));
    this.canvas = document.createElement('canvas');
    this.canvas.width = Math.max(1, Math.round(about.width * scale));
    this.canvas.height = Math.max(1, Math.round(about.height * scale));
    this.paint = this.canvas.getContext('2d', { willReadFrequently: true });
    this.range = box.querySelector('[type=range]');
    box.querySelector('.stage').append(this.canvas);
    this.canvas.addEventListener('pointerdown', (event) => this.down(event));
    this.canvas.addEventListener('pointermove', (event) => { if (this.last) for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke(one); });
    for (const end of ['pointerup', 'pointercancel']) this.canvas.addEventListener(end, () => { this.last = undefined; });
    if (about.mask) this.load(d.maskUrl(about.id, about.mask));
  }

  /** A grey picture: its lightness becomes how opaque the painting is. */
  async load(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const { width, height } = this.canvas;
    this.paint.drawImage(image, 0, 0, width, height);
    const pixels = this.paint.getImageData(0, 0, width, height), { data } = pixels;
    for (let i = 0; i < data.length; i += 4) { data[i + 3] = data[i]; data[i] = 0x22; data[i + 1] = 0xd3; data[i + 2] = 0xee; }
    this.paint.putImageData(pixels, 0, 0);
  }

  remember() {
    this.steps.push(this.paint.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.steps.length > 30) this.steps.shift();
  }

  point(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [((event.clientX - left) / width) * this.canvas.width, ((event.clientY - top) / height) * this.canvas.height];
  }

  down(event) {
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.remember();
    this.last = this.point(event);
    this.stroke(event);
  }

  stroke(event) {
    const { paint } = this, to = this.point(event), pen = Number(this.range.value) * (this.canvas.width / this.canvas.getBoundingClientRect().width);
    paint.globalCompositeOperation = this.erasing || event.button === 2 ? 'destination-out' : 'source-over';
    Object.assign(paint, { lineCap: 'round', lineJoin: 'round', lineWidth: pen, strokeStyle: COLOUR });
    paint.beginPath();
    paint.moveTo(...this.last);
    paint.lineTo(...to);
    paint.stroke();
    this.last = to;
  }

  choose(erasing) {
    this.erasing = erasing;
    this.box.querySelector('[data-do=brush]').setAttribute('aria-pressed', !erasing);
    this.box.querySelector('[data-do=eraser]').setAttribute('aria-pressed', erasing);
  }

  brush() { this.choose(false); }
  eraser() { this.choose(true); }
  clear() { this.remember(); this.paint.clearRect(0, 0, this.canvas.width, this.canvas.height); }
  back() { const before = this.steps.pop(); if (before) this.paint.putImageData(before, 0, 0); }

  invert() {
    this.remember();
    this.paint.globalCompositeOperation = 'source-out';
    this.paint.fillStyle = COLOUR;
    this.paint.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  region(chosen) {
    this.remember();
    const { paint, canvas } = this;
    paint.globalCompositeOperation = 'source-over';
    paint.fillStyle = COLOUR;
    for (const { label, outline } of this.about.regions) {
      if (label !== chosen.dataset.label) continue;
      paint.beginPath();
      for (let i = 0; i < outline.length; i += 2) paint[i ? 'lineTo' : 'moveTo'](outline[i] * canvas.width, outline[i + 1] * canvas.height);
      paint.fill();
    }
  }

  pressed(event) {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z') { event.preventDefault(); this.back(); }
    if (event.key === '[' || event.key === ']') this.range.value = Number(this.range.value) * (event.key === ']' ? 1.25 : 0.8);
    if (event.key.toLowerCase() === 'x') this.choose(!this.erasing);
  }

  value() {
    const { data } = this.paint.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const painted = data.some((value, i) => i % 4 === 3 && value > 0);
    return { png: painted ? this.canvas.toDataURL('image/png') : '' };
  }
}

class Crop {
  nothing = { box: null };

  constructor(about, box) {
    const { width, height } = about;
    Object.assign(this, { about, box, at: about.crop ? [...about.crop] : [0, 0, width, height] });
    this.frame = document.createElement('div');
    this.frame.className = 'frame';
    this.frame.innerHTML = ['nw', 'ne', 'sw', 'se'].map((corner) => `<i data-corner="${corner}"></i>`).join('');
    this.stage = box.querySelector('.stage');
    this.stage.append(this.frame);
    this.ratio = box.querySelector('select');
    this.ratio.addEventListener('change', () => { this.keepRatio('se'); this.show(); });
    this.stage.addEventListener('pointerdown', (event) => this.down(event));
    this.stage.addEventListener('pointermove', (event) => this.move(event));
    for (const end of ['pointerup', 'pointercancel']) this.stage.addEventListener(end, () => { this.held = undefined; });
    this.show();
  }

  point(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect(), { about } = this;
    return [((event.clientX - left) / width) * about.width, ((event.clientY - top) / height) * about.height];
  }

  down(event) {
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    const [x, y] = this.point(event), corner = event.target.dataset.corner, [l, t, r, b] = this.at;
    const inside = x > l && x < r && y > t && y < b, whole = l === 0 && t === 0 && r === this.about.width && b === this.about.height;
    if (!corner && (!inside || whole)) this.at = [x, y, x, y]; // a new one
    this.held = { corner: corner ?? (inside && !whole ? 'all' : 'se'), x, y, at: [...this.at] };
  }

  move(event) {
    if (!this.held) return;
    const { corner, x, y, at } = this.held, [px, py] = this.point(event), { width, height } = this.about;
    const clamp = (value, most) => Math.max(0, Math.min(most, value));
    if (corner === 'all') {
      const dx = clamp(at[0] + px - x, width - (at[2] - at[0])) - at[0], dy = clamp(at[1] + py - y, height - (at[3] - at[1])) - at[1];
      this.at = [at[0] + dx, at[1] + dy, at[2] + dx, at[3] + dy];
    } else {
      const fixed = [corner.includes('w') ? at[2] : at[0], corner.includes('n') ? at[3] : at[1]], to = [clamp(px, width), clamp(py, height)];
      this.at = [Math.min(fixed[0], to[0]), Math.min(fixed[1], to[1]), Math.max(fixed[0], to[0]), Math.max(fixed[1], to[1])];
      this.keepRatio(`${to[1] < fixed[1] ? 'n' : 's'}${to[0] < fixed[0] ? 'w' : 'e'}`);
    }
    this.show();
  }

  /** Shrink one side so that the shape is as chosen; the corner opposite to `corner` stays. */
  keepRatio(corner) {
    const ratio = RATIOS[this.ratio.value];
    if (!ratio) return;
    let [l, t, r, b] = this.at;
    const width = Math.min(r - l, (b - t) * ratio), height = width / ratio;
    if (corner.includes('w')) l = r - width; else r = l + width;
    if (corner.includes('n')) t = b - height; else b = t + height;
    this.at = [l, t, r, b];
  }

  show() {
    const { width, height } = this.about, [l, t, r, b] = this.at;
    Object.assign(this.frame.style, { left: `${(100 * l) / width}%`, top: `${(100 * t) / height}%`, width: `${(100 * (r - l)) / width}%`, height: `${(100 * (b - t)) / height}%` });
    this.box.querySelector('.n').textContent = `${Math.round(r - l)} × ${Math.round(b - t)}`;
  }

  value() { return { box: this.at.map(Math.round) }; }
}

/** A frame as shares of the picture's sides. */
class Region extends Crop {
  constructor(about, box) { super({ ...about, crop: null }, box); }

  value() {
    const { width, height } = this.about;
    return { region: this.at.map((value, i) => Math.round((1e4 * value) / (i % 2 ? height : width)) / 1e4) };
  }
}
