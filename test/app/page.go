package main

import (
	_ "embed"
	"html/template"
	"net/http"
	"os"
	"strconv"
	"time"
)

//go:embed page.html
var pageSource string

// page says who answers, for people.
func (s *server) page(w http.ResponseWriter, r *http.Request, _ *params) {
	page, err := template.New("page").Parse(pageSource)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	nanos, _ := strconv.ParseInt(s.listening, 10, 64)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, map[string]any{ // the client may have left
		"Name": s.cfg.name, "PID": os.Getpid(), "Proto": r.Proto, "Up": time.Since(time.Unix(0, nanos)).Round(time.Millisecond),
	})
}
