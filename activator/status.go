package activator

import (
	"io"
	"log"
	"net/http"

	"go.uber.org/zap"
)

// Healthz answers 200 as long as the process can answer at all.
func Healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, http.StatusOK, "ok") })
}

// Readyz answers 200 while all of ready report true, and 503 else.
func Readyz(ready ...func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, r := range ready {
			if !r() {
				writeStatus(w, http.StatusServiceUnavailable, "not ready")
				return
			}
		}
		writeStatus(w, http.StatusOK, "ready")
	})
}

func writeStatus(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may have left
}

// newErrorLog returns what net/http complains to: about clients, mostly, so at debug level.
func newErrorLog(logger *zap.Logger) *log.Logger {
	std, err := zap.NewStdLogAt(logger.Named("http"), zap.DebugLevel)
	if err != nil {
		return log.New(io.Discard, "", 0) // only for a level that does not exist
	}
	return std
}
