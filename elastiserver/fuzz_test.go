package elastiserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever a body holds, the event endpoint answers in JSON: with a Response that says something, or with a problem.
func FuzzIncomingRequest(f *testing.F) {
	for _, body := range []string{
		`{"count":1,"svc":"shop","namespace":"web"}`, `{"count":1,"svc":"nobody","namespace":"web"}`,
		`{"count":-1,"svc":"shop","namespace":"web"}`, `{"svc":7}`, `{"namespace":"web"}`, `{"count":1e99}`, `{"svc":"\ud800"}`,
		`null`, `[]`, `{`, ``, "\xff\xfe", `{"svc":"shop","namespace":"web"}{}`, strings.Repeat("[", 100),
	} {
		f.Add([]byte(body))
	}
	w := newWorld(f, serviceOf("web", "shop"))
	w.ready(f)
	handler := w.Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/informer/incoming-request", strings.NewReader(string(body)))
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		var told struct {
			Response
			problem
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &told); err != nil {
			t.Fatalf("%v in the answer %s", err, rec.Body)
		}
		switch rec.Code {
		case http.StatusOK:
			if told.Message == "" {
				t.Errorf("accepted without a word: %s", rec.Body)
			}
		case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge:
			if told.Status != rec.Code || told.Detail == "" {
				t.Errorf("not a whole problem document: %s", rec.Body)
			}
		default:
			t.Errorf("answered with %d: %s", rec.Code, rec.Body)
		}
		if (rec.Code == http.StatusRequestEntityTooLarge) != (len(body) > maxBody) {
			t.Errorf("%d bytes were answered with %d", len(body), rec.Code)
		}
	})
}
