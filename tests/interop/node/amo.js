// An independent amoCRM client drives the sandbox; prints what it was answered as JSON.
'use strict';
const { Amo } = require('@shevernitskiy/amo');
const asked = JSON.parse(process.argv[2]);

async function said(promise) {
  try {
    return { ok: await promise };
  } catch (error) {
    return { failed: String(error), response: error.response || null };
  }
}

async function main() {
  const tokens = [];
  const options = { on_token: token => { tokens.push(token); }, request_delay: 150 };
  const amo = new Amo(asked.host, { ...asked.auth, grant_type: 'authorization_code', code: asked.code }, options);
  const call = { direction: 'inbound', duration: 5, source: 'foreign', phone: asked.phone, uniq: 'foreign-1', request_id: '7' };
  const sip = {
    source_uid: 'foreign', source_name: 'foreign',
    metadata: { uniq: 'foreign-2', phone: '375171112233', from: '375291111101', called_at: 1767225600, duration: 0, service_code: 'foreign', link: '' },
    _embedded: { contacts: [{ name: 'Somebody' }], leads: [{ name: 'Call' }] },
  };
  const answers = {
    account: await said(amo.account.getAccount()),
    users: await said(amo.user.getUsers()),
    call: await said(amo.call.addCalls([call])),
    unknown: await said(amo.call.addCalls([{ ...call, phone: '+375290000000' }])),
    invalid: await said(amo.call.addCalls([{ ...call, direction: 'sideways' }])),
    unsorted: await said(amo.unsorted.addUnsortedSip([sip])),
    note: await said(amo.note.addNotes('contacts', [{ entity_id: asked.contact, note_type: 'common', params: { text: 'hello' } }])),
    null_note: await said(amo.note.addNotes('contacts', [
      { entity_id: asked.contact, note_type: 'call_in', params: { uniq: 'x', duration: 1, source: 's', phone: '1', link: null } }])),
    task: await said(amo.task.addTasks([{ text: 'call back', complete_till: 1767225600, entity_id: asked.contact, entity_type: 'contacts' }])),
    webhook: await said(amo.webhook.addWebhook({ destination: 'https://pbx.example/hook', settings: ['add_contact'] })),
  };
  const spent = new Amo(asked.host, { ...asked.auth, ...asked.spent, expires_at: 0 }, {});
  answers.spent = await said(spent.account.getAccount());
  console.log(JSON.stringify({ answers, tokens: tokens.length }));
}

main();
