// The page of the local bench: shows the data of /_kubehose/events, and sends faults to /_kubehose/faults.
'use strict';

// The names that `remap datadog` produces (src/record/remap.rs; cli/tests/docs.rs compares the two).
const NAMES = ['kube_container_name', 'kube_namespace', 'pod_name', 'container_id'];
const KEPT = 1000, SHOWN = 200, CALLS = 100, WINDOW = 120;

const $ = (id) => document.getElementById(id);
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };

const number = new Intl.NumberFormat('en');
const count = (n) => number.format(n);
const size = (n) => {
  for (const unit of ['B', 'KB', 'MB', 'GB']) {
    if (n < 1000 || unit === 'GB') return `${n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
};
const clock = (ms) => {
  const time = new Date(ms);
  return time.toLocaleTimeString('en-GB') + '.' + String(time.getMilliseconds()).padStart(3, '0');
};

/** The browser's zone, as it is at a time: CET, GMT+5:30. */
const zone = (ms) => {
  const parts = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' }).formatToParts(new Date(ms));
  return parts.find((part) => part.type === 'timeZoneName')?.value || '';
};
/** A time as it is shown, with its zone in full where the pointer rests. */
const timed = (ms) => element('time', { datetime: new Date(ms).toISOString(), title: `${clock(ms)} ${zone(ms)}, ${new Date(ms).toISOString()}` }, clock(ms));
for (const place of document.querySelectorAll('.zone')) place.textContent = zone(Date.now());

// ---- the plot

const SVG = 'http://www.w3.org/2000/svg';
const seconds = new Map();
let now = 0, pointed = null;

const shape = (name, attributes, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
/** A round number that is not below `n`. */
const ceiling = (n) => {
  const ten = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * ten).find((top) => top >= n);
};
const troubles = (second) => second.failed + second.refused;

function draw() {
  const plot = $('plot'), width = plot.clientWidth || 800, height = plot.clientHeight || 210;
  plot.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const left = 46, right = width - 6, top = 8, middle = height * 0.62, below = height * 0.7, bottom = height - 18;
  const past = [];
  // Omit the current second: it is incomplete, and would always look like a drop.
  for (let at = now - WINDOW; at < now; at++) past.push(seconds.get(at) || { at, accepted: 0, failed: 0, refused: 0, bytes: 0 });
  const most = ceiling(Math.max(...past.map((s) => s.accepted))), worst = ceiling(Math.max(...past.map(troubles)));
  const x = (i) => left + (right - left) * i / (WINDOW - 1);
  const y = (n) => middle - (middle - top) * n / most;
  const z = (n) => bottom - (bottom - below) * n / worst;
  const points = past.map((s, i) => `${x(i).toFixed(1)},${y(s.accepted).toFixed(1)}`).join(' ');
  const line = (at, name = 'grid') => shape('line', { class: name, x1: left, x2: right, y1: at, y2: at });
  const label = (text, at) => shape('text', { x: left - 6, y: at + 4, 'text-anchor': 'end' }, text);
  const short = (n) => n >= 1e6 ? `${n / 1e6}M` : n >= 1e3 ? `${n / 1e3}k` : String(n);
  const parts = [line(top), line(middle), line(below), line(bottom), label(short(most), top + 3), label('0', middle), label(short(worst), below + 3), label('0', bottom),
    shape('polygon', { class: 'area', points: `${x(0)},${middle} ${points} ${x(WINDOW - 1)},${middle}` }),
    shape('polyline', { class: 'line', points })];
  const title = (text, at) => shape('text', { class: 'title', x: left + 4, y: at }, text);
  parts.push(title('records accepted a second', top + 11), title('failed, refused or cut a second', below + 11));
  const bar = Math.max(2, (right - left) / WINDOW - 1);
  past.forEach((s, i) => {
    if (troubles(s)) parts.push(shape('rect', { class: 'bar', x: Math.max(left, x(i) - bar / 2), y: z(troubles(s)), width: bar, height: bottom - z(troubles(s)) }));
  });
  for (const [text, i, anchor] of [['2 min ago', 0, 'start'], ['1 min', WINDOW / 2, 'middle'], ['now', WINDOW - 1, 'end']]) {
    parts.push(shape('text', { x: x(i), y: height - 4, 'text-anchor': anchor }, text));
  }
  const taken = past.reduce((sum, s) => sum + s.accepted, 0), bad = past.reduce((sum, s) => sum + troubles(s), 0);
  if (pointed !== null) {
    const i = Math.max(0, Math.min(WINDOW - 1, Math.round((pointed - left) / (right - left) * (WINDOW - 1)))), s = past[i];
    parts.push(shape('line', { class: 'cursor', x1: x(i), x2: x(i), y1: top, y2: bottom }));
    put('readout', `${new Date(s.at * 1000).toLocaleTimeString('en-GB')} ${zone(s.at * 1000)}: ${count(s.accepted)} accepted, ${count(s.failed)} failed, ${count(s.refused)} calls refused or cut`);
  } else {
    put('readout', 'the last two minutes');
  }
  plot.setAttribute('aria-label', `In the last two minutes ${count(taken)} records were accepted, at most ${count(Math.max(...past.map((s) => s.accepted)))} in a second; ${count(bad)} records failed or calls were refused or cut.`);
  plot.replaceChildren(...parts);
}

$('plot').addEventListener('pointermove', (event) => { pointed = event.clientX - $('plot').getBoundingClientRect().left; draw(); });
$('plot').addEventListener('pointerleave', () => { pointed = null; draw(); });
addEventListener('resize', draw);

// ---- counts

function showCounts(event) {
  const s = event.stats, last = seconds.get(now - 1) || { accepted: 0, bytes: 0 };
  put('accepted', count(s.records_accepted));
  put('rate', `${count(last.accepted)} /s`);
  put('bytes', size(s.bytes_accepted));
  put('byterate', `${size(last.bytes)}/s`);
  put('billed', size(s.bytes_billed));
  put('factor', s.bytes_accepted ? `${(s.bytes_billed / s.bytes_accepted).toFixed(1)} times the bytes` : '5 KB a record at least');
  put('requests', count(s.requests));
  put('flight', `${count(s.in_flight)} in flight, ${count(Math.round(s.batch_records_mean))} records each`);
  put('failed', count(s.records_failed));
  put('throttled', `${count(s.faults.quota_records || 0)} throttled`);
  const cut = (s.faults.cut_before || 0) + (s.faults.cut_after || 0) + (s.faults.down || 0);
  const reasons = Object.entries(s.errors).concat(cut ? [['cut', cut]] : []).sort((a, b) => b[1] - a[1]);
  const refused = reasons.reduce((sum, [, n]) => sum + n, 0);
  put('refused', count(refused));
  put('reasons', reasons.length ? reasons.slice(0, 2).map(([name, n]) => `${count(n)} ${name.replace(/Exception$/, '')}`).join(', ') : 'none');
  $('failed').parentElement.classList.toggle('some', s.records_failed > 0);
  $('refused').parentElement.classList.toggle('some', refused > 0);
}

// ---- records

// The records that arrived, by kind, and how many of them the list has not shown yet.
const lists = { accepted: { records: [], total: 0, seen: 0 }, failed: { records: [], total: 0, seen: 0 } };
let view = 'accepted', held = false;

/** The JSON values in a record: one, or one in each line of a record that joins several. Null where it is something else. */
function values(text) {
  for (const parts of [[text], text.trim().split('\n')]) {
    try { return parts.map((part) => [part, JSON.parse(part)]); } catch { /* the next way */ }
  }
  return null;
}

/** The record's text as indented JSON, its numbers as they are; as it came where it is none. */
function unfold(record) {
  const pre = element('pre'), found = values(record.text);
  if (found) found.forEach(([text], i) => indent(pre, (i ? '\n' : '') + text)); else pre.textContent = record.text;
  return pre;
}

function indent(pre, json) {
  const tokens = json.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) || [];
  let depth = 0, text = json.startsWith('\n') ? '\n\n' : '';
  const newline = () => { text += '\n' + '  '.repeat(depth); };
  tokens.forEach((token, i) => {
    if (token === '{' || token === '[') {
      text += token;
      depth++;
      if (!'}]'.includes(tokens[i + 1])) newline();
    } else if (token === '}' || token === ']') {
      depth--;
      if (!'{['.includes(tokens[i - 1])) newline();
      text += token;
    } else if (token === ',') {
      text += token;
      newline();
    } else if (token === ':') {
      text += ': ';
    } else if (depth === 1 && tokens[i + 1] === ':' && NAMES.includes(token.slice(1, -1))) {
      pre.append(text, element('mark', { title: 'remapped' }, token));
      text = '';
    } else {
      text += token;
    }
  });
  pre.append(text);
}

/** The namespaces that the record's events name; of one that is cut or no JSON, those that its text shows. */
function namespaces(record) {
  return record.namespaces ??= [...new Set(values(record.text)?.map(([, value]) => namespace(value))
    ?? [...record.text.matchAll(/"(?:kube_namespace|namespace_name)" *: *"([^"\\]*)"/g)].map(([, name]) => name))].filter((name) => typeof name === 'string' && name);
}
const namespace = (value) => value?.kube_namespace ?? value?.kubernetes?.namespace_name;

function row(record) {
  const found = values(record.text), value = found?.[0][1] || {};
  const more = found?.length > 1 ? `${count(found.length)} lines: ` : '';
  const where = [namespace(value), value.pod_name ?? value.kubernetes?.pod_name, value.kube_container_name ?? value.kubernetes?.container_name].filter((part) => typeof part === 'string').join(' / ');
  const message = [value.log, value.message, value.msg].find((part) => typeof part === 'string');
  const details = element('details', {}, element('summary', {}, timed(record.at_ms),
    element('span', { class: 'stream', title: record.stream }, record.stream),
    element('span', { class: 'pod', title: where }, where || '–'),
    element('span', { class: 'message' }, ...(record.reason ? [element('span', { class: 'reason' }, `${record.reason}: `)] : []), more + (message === undefined ? record.text.trim() : message.trim() || '(empty)')),
    element('span', { class: 'size' }, size(record.bytes))));
  details.addEventListener('toggle', () => {
    if (!details.open || details.childElementCount > 1) return;
    const whole = record.whole ? '' : ', of which the beginning is shown';
    details.append(element('p', { class: 'facts' }, `record ${record.id} of call ${record.call}, stream ${record.stream}: ${count(record.bytes)} bytes${whole}, ${record.reason ? `not accepted: ${record.reason}` : `billed as ${count(record.billed)}`}`), unfold(record));
  });
  const item = element('li', {}, details);
  item.dataset.id = record.id;
  return item;
}

function matcher() {
  const words = $('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  const stream = $('of-stream').value, name = $('of-namespace').value;
  return (record) => (!stream || record.stream === stream) && (!name || namespaces(record).includes(name)) && words.every((word) => (record.lower ??= record.text.toLowerCase()).includes(word));
}

/** Adds rows for what is new, or draws all of them again. */
function showRecords(fromScratch = false) {
  const list = $('list'), matches = matcher(), shown = lists[view];
  if (fromScratch) list.replaceChildren();
  const newest = list.firstElementChild ? Number(list.firstElementChild.dataset.id) : -1;
  const found = shown.records.filter(matches);
  const rows = found.slice(-SHOWN).filter((record) => record.id > newest).reverse().map(row);
  const top = list.scrollTop, before = list.scrollHeight;
  list.prepend(...rows);
  while (list.childElementCount > SHOWN) list.lastElementChild.remove();
  if (top > 0) list.scrollTop = top + list.scrollHeight - before;
  shown.seen = shown.total;
  said();
}

/** Whether the list stands still, and how it goes on. */
const still = () => held ? '“Go on” shows them' : $('list').querySelector('details[open]') ? 'fold the record to see them' : null;

function said() {
  const { records, total, seen } = lists[view], matches = matcher(), searching = ['search', 'of-stream', 'of-namespace'].some((id) => $(id).value.trim() !== '');
  const found = searching ? records.filter(matches).length : records.length;
  const missed = total - seen, lost = Math.max(0, missed - Math.min(records.length, SHOWN));
  const more = missed ? `; ${count(missed)} more since held${lost ? `, of which the newest ${count(missed - lost)} can be shown` : ''}: ${still() || 'they follow'}` : '';
  put('found', !records.length ? 'none yet' : (searching ? `${count(found)} of the last ${count(records.length)} match` : `the last ${count(Math.min(found, SHOWN))}`) + more);
  put('view-failed', lists.failed.total ? `Failed or refused (${count(lists.failed.total)})` : 'Failed or refused');
  $('empty').hidden = records.length > 0 || view !== 'accepted';
}

function take(event) {
  for (const [name, records, total] of [['accepted', event.records, event.records_total], ['failed', event.failed, event.failed_total]]) {
    const list = lists[name];
    list.records = list.records.concat(records).slice(-KEPT);
    list.total = total;
  }
  const kept = [...lists.accepted.records, ...lists.failed.records];
  choices('of-stream', kept.map((record) => record.stream));
  choices('of-namespace', kept.flatMap(namespaces));
  // The record being read must not move.
  if (still() || lists[view].total === lists[view].seen) said(); else showRecords();
}

function show(name) {
  view = name;
  for (const each of Object.keys(lists)) $(`view-${each}`).setAttribute('aria-pressed', each === name);
  showRecords(true);
}
for (const each of Object.keys(lists)) $(`view-${each}`).addEventListener('click', () => show(each));

/** Offers what is among the kept records, and what is chosen. */
function choices(id, names) {
  const select = $(id), wanted = [...new Set([...names, select.value])].filter(Boolean).sort();
  if (wanted.join() === [...select.options].slice(1).map((option) => option.value).join()) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...wanted.map((name) => element('option', { value: name }, name)));
  select.value = chosen;
}

for (const id of ['search', 'of-stream', 'of-namespace']) $(id).addEventListener('input', () => showRecords(true));
$('hold').addEventListener('click', () => {
  held = !held;
  $('hold').setAttribute('aria-pressed', held);
  put('hold', held ? 'Go on' : 'Hold');
  if (!held) showRecords(true);
});
$('list').addEventListener('toggle', () => { if (!held && !$('list').querySelector('details[open]')) showRecords(); }, true);
addEventListener('keydown', (event) => {
  if (event.key === '/' && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); $('search').focus(); }
});

// ---- streams

function showStreams(streams) {
  const all = Object.entries(streams);
  put('streams-count', all.length ? `${count(all.length)} since the start` : 'none yet');
  const shown = JSON.stringify(all), body = $('streams');
  if (body.dataset.shown === shown) return;
  body.dataset.shown = shown;
  const cell = (text, bad) => element('td', bad ? { class: 'bad' } : {}, text);
  body.replaceChildren(...all.map(([name, s]) => element('tr', {}, cell(name), cell(count(s.records_accepted)), cell(count(s.records_failed), s.records_failed),
    cell(size(s.bytes_accepted)), cell(size(s.bytes_billed)), cell(count(s.calls)), cell(count(s.calls_refused), s.calls_refused))));
}

// ---- calls

function showCalls(calls) {
  const body = $('calls');
  for (const call of calls.slice(-CALLS)) {
    const known = call.records > 0, cell = (text) => element('td', {}, text);
    const line = element('tr', {}, cell(count(call.id)), cell(timed(call.at_ms)), cell(call.stream || '–'), cell(call.outcome),
      cell(known ? count(call.records) : '–'), cell(known ? count(call.failed) : '–'), cell(known ? size(call.bytes) : '–'), cell(known ? size(call.billed) : '–'));
    if (call.outcome !== '200') line.classList.add('bad');
    if (call.failed) line.children[5].classList.add('bad');
    body.prepend(line);
  }
  while (body.childElementCount > CALLS) body.lastElementChild.remove();
}

// ---- faults

const FAULTS = [
  { key: 'quota_records_per_second', name: 'Throttle', means: 'records a second; those over it fail, “Slow down.”', value: 1000 },
  { key: 'fail_every_record', name: 'Fail records', means: 'every Nth record fails, the others are accepted', value: 100 },
  { key: 'fail_every_request', name: 'Refuse calls', means: 'every Nth call gets a 500', value: 5 },
  { key: 'cut_before_every', name: 'Cut before', means: 'every Nth connection is reset, nothing is accepted', value: 5 },
  { key: 'cut_after_every', name: 'Cut after', means: 'every Nth call is accepted and not answered', value: 5 },
  { key: 'contradict', name: 'Contradict', means: 'every Nth reply contradicts itself', value: 5 },
  { key: 'latency_ms', name: 'Slow', means: 'ms more until each reply', value: 500 },
  { key: 'access_denied', name: 'Deny', means: 'every call gets AccessDeniedException', on: true, off: false },
  { key: 'down', name: 'Down', means: 'every connection is reset', on: 'reset', off: 'off' },
];
let faults = {};

async function setFaults(changed) {
  const alert = $('refusal');
  try {
    const reply = await fetch('faults', { method: 'PUT', body: JSON.stringify({ ...faults, ...changed }) });
    if (!reply.ok) throw new Error(await reply.text());
    showFaults(await reply.json());
    alert.hidden = true;
  } catch (error) {
    alert.textContent = `The faults were not changed: ${error.message}`;
    alert.hidden = false;
  }
}

for (const fault of FAULTS) {
  const id = `fault-${fault.key}`, button = element('button', { type: 'button', role: 'switch', id, 'aria-checked': 'false', 'aria-describedby': `${id}-means` });
  const label = element('label', { for: id }, fault.name, element('small', { id: `${id}-means` }, fault.means));
  button.setAttribute('aria-label', fault.name);
  const item = element('li', {}, button, label);
  const isOn = () => button.getAttribute('aria-checked') === 'true';
  if (fault.on === undefined) {
    const input = element('input', { type: 'number', min: 1, max: 1e9, step: 1, value: fault.value, 'aria-label': `${fault.name}: ${fault.means}` });
    const given = () => Math.min(1e9, Math.max(1, Math.round(Number(input.value)) || fault.value));
    button.addEventListener('click', () => setFaults({ [fault.key]: isOn() ? 0 : given() }));
    input.addEventListener('change', () => { input.value = given(); if (isOn()) setFaults({ [fault.key]: given() }); });
    item.append(input);
  } else {
    button.addEventListener('click', () => setFaults({ [fault.key]: isOn() ? fault.off : fault.on }));
  }
  fault.button = button;
  $('faults').append(item);
}
$('calm').addEventListener('click', () => setFaults(Object.fromEntries(FAULTS.map((fault) => [fault.key, fault.on === undefined ? 0 : fault.off]))));

function showFaults(set) {
  faults = set;
  for (const fault of FAULTS) {
    const value = set[fault.key], on = fault.on === undefined ? value > 0 : value !== fault.off;
    fault.button.setAttribute('aria-checked', on);
    const input = fault.button.parentElement.querySelector('input');
    if (input && on && document.activeElement !== input) input.value = value;
  }
}

// ---- events

function restart() {
  for (const list of Object.values(lists)) Object.assign(list, { records: [], total: 0, seen: 0 });
  seconds.clear();
  $('list').replaceChildren();
  $('calls').replaceChildren();
}

const source = new EventSource('events');
let first = true;
const state = (name, text) => { $('state').dataset.state = name; put('state', text); };
source.onopen = () => { first = true; state('live', 'live'); };
source.onerror = () => state('lost', 'connection lost; trying again');
source.onmessage = (message) => {
  const event = JSON.parse(message.data);
  // The first event of a connection has all the kept data.
  if (first) restart();
  first = false;
  now = Math.floor(event.now_ms / 1000);
  for (const second of event.seconds) seconds.set(second.at, second);
  for (const at of seconds.keys()) if (at < now - WINDOW - 5) seconds.delete(at);
  if (event.faults) showFaults(event.faults);
  showCounts(event);
  showStreams(event.stats.streams);
  showCalls(event.calls);
  take(event);
  draw();
};
draw();
