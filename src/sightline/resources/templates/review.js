// Keys and clicks of the review page. The server draws every view; this asks for it and puts it into its place.
'use strict';
const $ = (selector, within = document) => within.querySelector(selector);
const UNDO = 'sightline-undo', KEYS = 'sightline-keys', MATCHES = 8;
let busy = false;

// ── what a window remembers ──
const stack = () => { try { return JSON.parse(sessionStorage.getItem(UNDO)) || []; } catch { return []; } };
const remember = (list) => { try { sessionStorage.setItem(UNDO, JSON.stringify(list.slice(-1000))); } catch { /* no room: no undo */ } };
const say = (text, trouble = '', heard = '') => { $('#done').textContent = text; $('#heard').textContent = heard; $('#trouble').textContent = trouble; };

// ── views ──
async function show(url, form) {
  if (busy) return false;
  busy = true;
  try {
    const answer = await fetch(url, form ? {method: 'POST', body: new URLSearchParams(form)} : {});
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const main = $('#main', page);
    if (!main) throw new Error(`the server answered with status ${answer.status}`);
    place(main, page.title, form ? null : url);
    return true;
  } catch (error) {
    const why = error instanceof TypeError ? 'The server does not answer' : `There was no page: ${error.message}`;
    say('', `${why}. What was decided before is kept. Start the server again if it has ended, then reload this page.`);
    return false;
  } finally {
    busy = false;
  }
}

function place(main, title, url) {
  if (!$('#trouble') || !main.dataset.view) { location.reload(); return; }
  const focused = document.activeElement;
  const name = focused.matches('#main button, #main nav a') ? focused.id : '';
  $('#main').replaceWith(main);
  document.title = title;
  const {view, item, text, trouble, undoItem, undoToken, undoState} = main.dataset;
  history.replaceState(null, '', url || `/review${view === 'grid' ? '/grid' : ''}${item ? `?item=${item}` : ''}`);
  if (undoState) remember([...stack(), {item: undoItem, token: undoToken, state: undoState}]);
  const image = $('.large img');
  say(text, trouble, [text && `${$('.progress span').textContent}.`, image ? `${image.alt}.` : ''].filter(Boolean).join(' '));
  const kept = name && document.getElementById(name);
  const target = kept && !kept.disabled ? kept : view === 'grid' ? chosen() : $('#heading') || $('#end');
  if (target) { target.focus({preventScroll: view !== 'grid'}); choose(target); }
}

const link = (id) => { const found = document.getElementById(id); if (found) show(found.getAttribute('href')); };

// ── decisions ──
function decide(action, other = {}) {
  const form = $('#decide');
  if (!form) return;
  const button = $(`[value=${action}]`, form);
  if (button && button.disabled) {
    say('', action === 'accept' ? 'Nothing is suggested for this image.' : 'This image has no label to keep.');
    return;
  }
  const fields = Object.fromEntries(new FormData(form));
  show('/review/decide', {...fields, action, ...other});
}

async function undo() {
  const form = $('#decide'), list = stack();
  const seen = form ? $('[name=seen]', form).value : '', item = form ? $('[name=item]', form).value : '';
  const view = $('#main').dataset.view;
  const at = seen ? list.findLastIndex((one) => one.item === item && one.state === seen) : list.length - 1;
  if (!seen && at < 0) { say('', 'This window has decided nothing that could be taken back; go to an image to undo its decision.'); return; }
  const one = at >= 0 ? list[at] : {item, token: '', state: seen};
  if (await show('/review/undo', {...one, view}) && at >= 0) remember(list.filter((_, place) => place !== at));
}

async function copy() {
  getSelection().selectAllChildren($('#command'));
  try { await navigator.clipboard.writeText($('#command').textContent); } catch { document.execCommand('copy'); }
  say('The command is copied.');
}

// ── the grid ──
const chosen = () => $('.tile[aria-current]');
function choose(tile) {
  if (!tile.classList || !tile.classList.contains('tile')) return;
  const old = chosen();
  if (old) old.removeAttribute('aria-current');
  tile.setAttribute('aria-current', 'true');
  const form = $('#decide'), {number, seen, given, suggestion} = tile.dataset;
  $('[name=item]', form).value = number;
  $('[name=seen]', form).value = seen;
  for (const [part, text, button] of [['suggestion', suggestion, '#do-accept'], ['given', given, '#do-keep']]) {
    $(`[data-part=${part}]`, form).textContent = text;
    $(button).disabled = !text;
  }
  form.setAttribute('aria-label', `Decide on image ${number}`);
  $('#on').textContent = `Image ${number}`;
}
function step(by) {
  const tiles = [...document.querySelectorAll('.tile')], at = tiles.indexOf(chosen()) + by;
  if (tiles[at]) tiles[at].focus();
  else if (at < 0) link('to-previous');
  else link('to-next');
}
const columns = () => getComputedStyle($('#grid')).gridTemplateColumns.split(' ').length;

// ── another label ──
const classes = JSON.parse(($('#classes') || {textContent: '[]'}).textContent).map((name, index) => ({name, index}));
let matches = [], picked = 0;
function match() {
  const text = $('#label').value.trim().replace(/\s+/g, ' '), typed = text.toLocaleLowerCase();
  const all = [...classes, ...JSON.parse($('#main').dataset.added).map((name, place) => ({name, index: classes.length + place, added: true}))];
  const ranked = all.map((one) => ({...one, at: one.name.toLocaleLowerCase().indexOf(typed)})).filter((one) => one.at >= 0);
  ranked.sort((a, b) => (a.at > 0) - (b.at > 0) || a.name.length - b.name.length || a.index - b.index);
  matches = typed ? ranked.slice(0, MATCHES) : ranked.sort((a, b) => a.index - b.index).slice(0, MATCHES);
  const more = ranked.length - matches.length;
  $('#none').textContent = !matches.length ? 'No class has that in its name.' : more > 0 ? `${more} more; type to narrow them down.` : '';
  if (text && !all.some((one) => one.name === text)) matches.push({name: text, add: true});
  pick(0);
}
function pick(place) {
  picked = Math.min(Math.max(place, 0), matches.length - 1);
  const list = $('#matches'), field = $('#label');
  list.replaceChildren(...matches.map(({name, add}, at) => {
    const option = document.createElement('li');
    option.id = `match-${at}`;
    option.textContent = add ? `Add the class ${name} …` : name;
    option.classList.toggle('add', Boolean(add));
    option.setAttribute('role', 'option');
    option.setAttribute('aria-selected', String(at === picked));
    return option;
  }));
  field.setAttribute('aria-expanded', String(matches.length > 0));
  $('#label-ok span').textContent = matches[picked] && matches[picked].add ? 'Add this class …' : 'Give it this label';
  if (matches.length) { field.setAttribute('aria-activedescendant', `match-${picked}`); list.children[picked].scrollIntoView({block: 'nearest'}); }
  else field.removeAttribute('aria-activedescendant');
}
function asking(name) {
  $('#choose').hidden = name !== '';
  $('#ask').hidden = name === '';
  $('#labels').setAttribute('aria-labelledby', name ? 'ask-title' : 'labels-title');
  $('#ask-title').textContent = name ? `Add the class ${name}?` : '';
  $(name ? '#ask-yes' : '#label').focus();
}
function openLabels() {
  if (!$('#decide')) return;
  $('#label').value = '';
  $('#labels').showModal();
  match();
  asking('');
}
function take(place) {
  const one = matches[place];
  if (!one) return;
  if (one.add) { pick(place); asking(one.name); return; }
  $('#labels').close();
  decide('other', one.added ? {name: one.name} : {label: one.index});
}
function add() {
  const {name} = matches[picked];
  $('#labels').close();
  decide('other', {name, add: true});
}

// ── events ──
const PRESSED = {
  a: () => decide('accept'), k: () => decide('keep'), x: () => decide('out'), l: openLabels, u: undo,
  g: () => link($('#main').dataset.view === 'grid' ? 'to-one' : 'to-grid'),
  ArrowLeft: () => $('#grid') ? step(-1) : link('to-previous'), ArrowRight: () => $('#grid') ? step(1) : link('to-next'),
  ArrowUp: () => step(-columns()), ArrowDown: () => step(columns()),
};
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || $('#labels[open]') || !$('#trouble')) return;
  if (event.target.matches('input:not([type=checkbox]), textarea, select, pre') || !$('#keys').checked) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!(key in PRESSED) || ((key === 'ArrowUp' || key === 'ArrowDown') && !$('#grid'))) return;
  event.preventDefault();
  if (!event.repeat || key.startsWith('Arrow')) PRESSED[key]();
});
document.addEventListener('submit', (event) => {
  if (event.target.id !== 'decide') return;
  event.preventDefault();
  decide(event.submitter ? event.submitter.value : 'accept');
});
document.addEventListener('click', (event) => {
  const on = event.target.closest('a, button, #matches li');
  if (!on || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (on.id === 'do-other') openLabels();
  else if (on.id === 'do-undo') undo();
  else if (on.id === 'copy') copy();
  else if (on.id === 'label-ok') take(picked);
  else if (on.id === 'ask-yes') add();
  else if (on.id === 'ask-no') asking('');
  else if (on.closest('#matches')) take([...$('#matches').children].indexOf(on));
  else if (on.matches('.tile') && event.detail === 1) { event.preventDefault(); on.focus(); choose(on); }
  else if (on.matches('a[href^="/review"]')) { event.preventDefault(); show(on.getAttribute('href')); }
});
document.addEventListener('focusin', (event) => { if (event.target.classList.contains('tile')) choose(event.target); });
if ($('#labels')) {
  $('#label').addEventListener('input', match);
  $('#label').addEventListener('keydown', (event) => {
    const by = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (event.isComposing) return;
    if (by) pick(picked + by);
    else if (event.key === 'Enter') { if (!event.repeat) take(picked); }
    else return;
    event.preventDefault();
  });
  $('#ask-yes').addEventListener('keydown', (event) => { if (event.repeat) event.preventDefault(); });  // the Enter that asked
  try { $('#keys').checked = localStorage.getItem(KEYS) !== 'off'; } catch { /* not remembered */ }
  $('#keys').addEventListener('change', (event) => { try { localStorage.setItem(KEYS, event.target.checked ? 'on' : 'off'); } catch { /* not remembered */ } });
  say($('#main').dataset.text, $('#main').dataset.trouble);
}
