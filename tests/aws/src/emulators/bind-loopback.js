// kinesis-local has no setting for its listen address, and listens on all interfaces. It does not verify signatures,
// so it would be open to the whole network. This script binds every listening socket of the program to 127.0.0.1.
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...a) {
  if (a[0] && typeof a[0] === 'object' && 'port' in a[0]) a[0].host = '127.0.0.1';
  else if (typeof a[0] === 'number') { if (typeof a[1] === 'string') a[1] = '127.0.0.1'; else a.splice(1, 0, '127.0.0.1'); }
  return listen.apply(this, a);
};
