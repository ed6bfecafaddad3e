// What amoCRM's page does for a widget, as far as a telephony widget needs it: define, settings, words, add_action, $authorizedAjax.
'use strict';
var actions = {};

async function token() {
  const answer = await fetch('/-/token?user=' + document.getElementById('user').value, {method: 'POST'});
  return (await answer.json()).token;
}

async function authorizedAjax(asked) {
  const headers = {'X-Auth-Token': await token()};
  const form = new URLSearchParams(asked.data || {});
  const isGet = (asked.method || 'GET') === 'GET';
  const url = asked.url + (isGet && form.size ? '?' + form : '');
  const answer = await fetch(url, {method: asked.method || 'GET', headers: headers, body: isGet ? undefined : form});
  const body = await answer.json().catch(() => null);
  if (!answer.ok) { throw {status: answer.status, responseJSON: body}; }
  return body;
}

window.define = async function (needed, make) {
  const [settings, words] = await Promise.all([
    fetch('/-/widget/settings').then(a => a.json()), fetch('/-/widget/i18n/' + document.documentElement.lang + '.json').then(a => a.json())]);
  const widget = Object.create({
    get_settings: () => settings, i18n: key => words[key], add_action: (name, act) => { actions[name] = act; }, $authorizedAjax: authorizedAjax});
  make().call(widget);
  if (widget.callbacks.render()) { widget.callbacks.init(); widget.callbacks.bind_actions(); }
  document.body.dataset.ready = 'yes';
};

function cell(row, text) { const made = row.insertCell(); made.textContent = text; return made; }

async function show() {
  const state = await (await fetch('/-/state')).json();
  const users = document.getElementById('user'), contacts = document.getElementById('contacts'), calls = document.getElementById('calls');
  if (!users.options.length) { state.users.forEach(user => users.add(new Option(user.name, user.id))); }
  if (contacts.rows.length !== state.contacts.length) {
    contacts.replaceChildren();
    state.contacts.forEach(contact => {
      const row = contacts.insertRow(), button = document.createElement('button');
      cell(row, contact.name);
      button.textContent = contact.phone;
      button.onclick = () => actions.phone({value: contact.phone});
      row.insertCell().append(button);
    });
  }
  document.getElementById('popups').replaceChildren(...state.popups.map(popup => {
    const made = document.createElement('div');
    made.className = 'popup';
    made.textContent = popup.phone_number + ' → ' + popup.users.join(', ');
    return made;
  }));
  calls.replaceChildren();
  state.calls.forEach(call => { const row = calls.insertRow(); cell(row, call.note_type); cell(row, call.params.phone); cell(row, call.params.duration); });
  setTimeout(show, 1000);
}
show();
