"""The server of test_download.sh. usage: download_server.py WWW LOG, prints its port.

Serves WWW with byte ranges and writes a line "METHOD PATH RANGE" a request to LOG. Of a file FILE,
  FILE.sha     makes it a large file of the hub: a redirect with this X-Linked-ETag (and FILE.size as X-Linked-Size)
  FILE.drop    breaks the connection once, after this many bytes; FILE.drops: each time
  FILE.norange ignores ranges             FILE.status answers with this status
  FILE.head    answers HEAD with it       FILE.slow   waits so many seconds amid the bytes
  FILE.location redirects to this URL
"""
import http.server, os, re, sys, time

www, log = sys.argv[1:3]

def text(path):
    return open(path).read().strip() if os.path.exists(path) else None

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, with_body):
        wanted = self.headers.get("Range", "")
        open(log, "a").write(f"{self.command} {self.path} {wanted}\n")
        stored = self.path.startswith("/stored/")
        path = www + (self.path[len("/stored"):] if stored else self.path)
        status = text(path + ".status")
        if status or not os.path.isfile(path):
            return self.reply(int(status or 404), b"no such file", {}, with_body)
        if text(path + ".head") and not with_body:
            return self.reply(int(text(path + ".head")), b"", {}, False)
        location = text(path + ".location")
        if location:
            return self.reply(302, b"", {"Location": location}, with_body)
        body = open(path, "rb").read()
        sha = text(path + ".sha")
        if sha and not stored:
            size = text(path + ".size") or str(len(body))
            facts = {"X-Linked-ETag": f'"{sha}"', "X-Linked-Size": size, "Location": "/stored" + self.path}
            return self.reply(302, b"", facts, with_body)
        if stored and not with_body:
            return self.reply(403, b"", {}, False)  # a storage that refuses HEAD
        begin = re.fullmatch(r"bytes=(\d+)-", wanted)
        if begin and not os.path.exists(path + ".norange"):
            begin = int(begin[1])
            if begin >= len(body):
                return self.reply(416, b"", {}, with_body)
            facts = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
            return self.reply(206, body[begin:], facts, with_body, path)
        self.reply(200, body, {}, with_body, path)

    def reply(self, status, body, headers, with_body, path=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        drop = path and with_body and (text(path + ".drop") or text(path + ".drops"))
        if drop:
            if os.path.exists(path + ".drop"):
                os.remove(path + ".drop")
            body = body[:int(drop)]
        slow = path and with_body and text(path + ".slow")
        if slow:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(float(slow))
            body = body[1000:]
        if with_body:
            self.wfile.write(body)
        if drop:
            self.close_connection = True

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
