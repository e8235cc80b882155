package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGetPrintsALineForEachURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-App-Name", "web")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(strings.Repeat("x", 2*bodyShown)))
	}))
	defer server.Close()
	refused := httptest.NewServer(http.NotFoundHandler())
	refused.Close()

	var out strings.Builder
	err := run(t.Context(), []string{"get", server.URL + "/a", refused.URL}, func(string) (string, bool) { return "", false }, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "1 of 2 URLs had no answer") {
		t.Errorf("error %v, want one that counts the unanswered", err)
	}
	lines := json.NewDecoder(strings.NewReader(out.String()))
	var first, second fetched
	if err := lines.Decode(&first); err != nil {
		t.Fatal(err)
	}
	if err := lines.Decode(&second); err != nil {
		t.Fatal(err)
	}
	if first.Status != http.StatusTeapot || first.Name != "web" || len(first.Body) != bodyShown || first.Error != "" {
		t.Errorf("answered: %+v", first)
	}
	if second.Status != 0 || !strings.Contains(second.Error, "refused") {
		t.Errorf("refused: %+v", second)
	}
}

func TestGetWantsAURL(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{"get"}, func(string) (string, bool) { return "", false }, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "no URL") {
		t.Errorf("error %v", err)
	}
}
