package local

import (
	"math"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// reader builds a File of what it reads.
type reader struct {
	dir    string
	file   *File
	https  value            // listen.https
	names  map[string]value // namespace/name of the services so far, to their names
	claims map[string]value // what services so far have claimed, to their names
	ports  map[int]value    // fixed ports of the services so far, to their ports
}

func (r *reader) read(root value) {
	if !root.isMapping() {
		root.fail("the file must be a mapping that begins with names such as \"services:\", not %s", root.kind())
		return
	}
	listed := false
	root.mapping(fields{
		"listen": r.listen,
		"tls":    r.tls,
		"services": func(v value) {
			listed = true
			v.list(r.service)
		},
	})
	if !listed {
		root.fail("services: missing; it is the list of what to run")
	}
	if r.file.Listen.HTTPS != "" && r.file.TLS.Cert == "" {
		r.https.fail("an https listener needs a certificate; name its files in tls.cert and tls.key")
	}
}

func (r *reader) listen(v value) {
	taken := make(map[string]string)
	listener := func(name string, to *string) func(value) {
		return func(v value) {
			if name == "https" {
				r.https = v
			}
			if !v.text(to) || *to == "" {
				return
			}
			if !checkListener(v, *to, name == "control") {
				return
			}
			if other := taken[*to]; other != "" && !strings.HasSuffix(*to, ":0") {
				v.fail("%s is the address of listen.%s, too", *to, other)
			}
			taken[*to] = name
		}
	}
	listen := &r.file.Listen
	v.mapping(fields{
		"http":    listener("http", &listen.HTTP),
		"https":   listener("https", &listen.HTTPS),
		"control": listener("control", &listen.Control),
		"metrics": listener("metrics", &listen.Metrics),
	})
}

// checkListener accepts host:port. The control port has no authentication on a laptop, so it stays there.
func checkListener(v value, address string, loopback bool) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		v.fail("%q is not an address; use host:port, such as 127.0.0.1:8080", address)
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.fail("%q is not a port; use a number up to %d", port, math.MaxUint16)
		return false
	}
	if ip := net.ParseIP(host); loopback && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		v.fail("%q can be reached from elsewhere; the control port listens on a loopback address, such as 127.0.0.1:8012", address)
		return false
	}
	return true
}

func (r *reader) tls(v value) {
	tls := &r.file.TLS
	v.mapping(fields{"cert": r.path(&tls.Cert), "key": r.path(&tls.Key)})
	switch {
	case tls.Cert != "" && tls.Key == "":
		v.missing("key", "it goes together with cert")
	case tls.Cert == "" && tls.Key != "":
		v.missing("cert", "it goes together with key")
	}
}

// path takes a file's name, which is relative to the configuration file.
func (r *reader) path(to *string) func(value) {
	return func(v value) {
		if v.text(to) && *to != "" && !filepath.IsAbs(*to) {
			*to = filepath.Join(r.dir, *to)
		}
	}
}
