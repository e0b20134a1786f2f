// A file that is dropped, pasted or chosen goes to the server within the event; one that is too large only by its name.
const send = (file) => {
  if (!file) return;
  const zone = element.querySelector('.sl-drop');
  const preview = zone.querySelector('img');
  const tell = (data) => trigger('upload', {name: file.name || 'pasted image', bytes: file.size, data});
  preview.hidden = true;
  if (file.size > Number(zone.dataset.most)) { tell(''); return; }
  preview.onload = () => { preview.hidden = false; URL.revokeObjectURL(preview.src); };
  preview.onerror = () => { preview.hidden = true; };
  preview.src = URL.createObjectURL(file);
  const reader = new FileReader();
  reader.onload = () => tell(String(reader.result).split(',')[1] || '');
  reader.readAsDataURL(file);
};
element.addEventListener('change', (event) => { send(event.target.files[0]); event.target.value = ''; });
element.addEventListener('dragover', (event) => { event.preventDefault(); element.querySelector('.sl-drop').classList.add('over'); });
element.addEventListener('dragleave', () => element.querySelector('.sl-drop').classList.remove('over'));
element.addEventListener('drop', (event) => {
  event.preventDefault();
  element.querySelector('.sl-drop').classList.remove('over');
  send(event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  if (element.offsetParent) send([...event.clipboardData.files].find((file) => file.type.startsWith('image/')));
});
