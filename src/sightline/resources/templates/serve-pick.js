// A picture that is clicked is named to the server by its number.
element.addEventListener('click', (event) => {
  const picked = event.target.closest('[data-pick]');
  if (!picked) return;
  if (picked.closest('.sl-examples')) document.querySelectorAll('.sl-drop img').forEach((one) => { one.hidden = true; });
  trigger('select', {pick: Number(picked.dataset.pick)});
});
