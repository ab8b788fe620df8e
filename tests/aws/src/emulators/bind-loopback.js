// kinesis-local has no setting for the address that it binds, and listens on all interfaces. It checks no signature, so that would
// offer it to the whole network: force every listening socket of this program onto 127.0.0.1.
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...a) {
  if (a[0] && typeof a[0] === 'object' && 'port' in a[0]) a[0].host = '127.0.0.1';
  else if (typeof a[0] === 'number') { if (typeof a[1] === 'string') a[1] = '127.0.0.1'; else a.splice(1, 0, '127.0.0.1'); }
  return listen.apply(this, a);
};
