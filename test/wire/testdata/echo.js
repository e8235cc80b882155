// An endpoint that tells what Node's parser made of a request, in the shape that the request's X-Shape asks for. It prints
// its port.
'use strict';
const crypto = require('crypto');
const http = require('http');

let malformed = 0;
let connections = 0;

const server = http.createServer({ maxHeaderSize: 128 << 10 }, (req, res) => {
  const hash = crypto.createHash('sha256');
  let length = 0;
  req.on('data', (data) => { hash.update(data); length += data.length; });
  req.on('end', () => {
    const seen = JSON.stringify({
      method: req.method, target: req.url, version: req.httpVersion, fields: req.rawHeaders, trailers: req.rawTrailers,
      length, hash: hash.digest('hex'), connection: req.socket.number, malformed,
    });
    const shape = req.headers['x-shape'];
    res.setHeader('X-Id', req.headers['x-id'] || '');
    switch (shape) {
      case 'chunked':
        res.write(seen.slice(0, 10));
        setImmediate(() => res.end(seen.slice(10)));
        return;
      case 'trailers':
        res.setHeader('Trailer', 'X-After');
        res.write(seen);
        res.addTrailers({ 'X-After': 'all' });
        res.end();
        return;
      case 'close':
        res.shouldKeepAlive = false;
        res.useChunkedEncodingByDefault = false;
        res.write(seen);
        res.end();
        return;
      case 'hints':
        res.writeEarlyHints({ link: '</style.css>; rel=preload' });
        res.end(seen);
        return;
      case '204':
        res.writeHead(204);
        res.end();
        return;
      case '304':
        res.writeHead(304, { 'Content-Length': '12345' });
        res.end();
        return;
    }
    res.end(seen); // with its Content-Length
  });
});

server.on('connection', (socket) => { socket.number = ++connections; });
server.on('clientError', (err, socket) => { malformed++; socket.destroy(); });
server.on('upgrade', (req, socket, head) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
  socket.write(head);
  socket.pipe(socket);
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
