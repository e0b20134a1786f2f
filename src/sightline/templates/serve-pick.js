// A picture that is clicked is named to the server by its number.
element.addEventListener('click', (event) => {
  const picked = event.target.closest('[data-pick]');
  if (picked) trigger('select', {pick: Number(picked.dataset.pick)});
});
