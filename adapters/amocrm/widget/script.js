// vochid in amoCRM and Kommo: a click on a number places the call, a line in the corner says how it goes.
// The server finds out who asks by the token that $authorizedAjax adds; the widget knows no secret.
define([], function () {
  'use strict';

  var OVER = ['ended', 'failed', 'refused'];
  var ASK_EVERY_MS = 1000;
  var ASK_AT_MOST_MS = 2 * 3600 * 1000;
  var GONE_AFTER_MS = 6000;

  return function () {
    var self = this;
    var current = 0; // a newer click's line replaces the older one's

    function server() {
      var address = String((self.get_settings() || {}).server || '').trim().replace(/\/+$/, '');
      return address && !/^https?:\/\//.test(address) ? 'https://' + address : address;
    }

    function say(key, detail) {
      var line = document.getElementById('vochid-call');
      if (!line) {
        line = document.createElement('div');
        line.id = 'vochid-call';
        line.setAttribute('role', 'status');
        line.style.cssText = 'position:fixed;right:24px;bottom:24px;z-index:10000;padding:12px 18px;border-radius:6px;background:#1f2d3d;color:#fff;' +
          'font:14px/1.4 sans-serif;box-shadow:0 4px 16px rgba(0,0,0,.25);max-width:340px';
        document.body.appendChild(line);
      }
      line.dataset.state = key;
      line.textContent = self.i18n('call')[key] + (detail ? ': ' + detail : '');
    }

    function clear(call) {
      setTimeout(function () {
        var line = document.getElementById('vochid-call');
        if (line && call === current) { line.remove(); }
      }, GONE_AFTER_MS);
    }

    function ask(method, data, done, failed) {
      // No header of our own beside the token: the browser asks the server's leave for every one.
      self.$authorizedAjax({url: server() + '/amocrm/make-call', method: method, data: data, dataType: 'json'}).then(done, function (answer) {
        var problem = answer && answer.responseJSON;
        failed(problem && problem.detail || '');
      });
    }

    function follow(call, request, since) {
      if (call !== current || Date.now() - since > ASK_AT_MOST_MS) { return; }
      ask('GET', {request_id: request}, function (told) {
        if (call !== current) { return; }
        say(told.state);
        if (OVER.indexOf(told.state) >= 0) { clear(call); return; }
        setTimeout(function () { follow(call, request, since); }, ASK_EVERY_MS);
      }, function () {
        setTimeout(function () { follow(call, request, since); }, 5 * ASK_EVERY_MS);
      });
    }

    function place(phone) {
      var call = ++current;
      if (!server()) { say('no_server'); clear(call); return; }
      say('placing');
      ask('POST', {phone: phone}, function (told) {
        if (call !== current) { return; }
        say(told.state);
        follow(call, told.request_id, Date.now());
      }, function (detail) {
        if (call !== current) { return; }
        say('error', detail);
        clear(call);
      });
    }

    this.callbacks = {
      render: function () { return true; },
      init: function () {
        self.add_action('phone', function (clicked) { place(String(clicked && clicked.value || '')); });
        return true;
      },
      bind_actions: function () { return true; },
      settings: function () { return true; },
      onSave: function () { return true; },
      destroy: function () {}
    };
    return this;
  };
});
