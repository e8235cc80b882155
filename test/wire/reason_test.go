package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/dormouse-dev/dormouse/scaling"
)

// reasons returns every constant of type scaling.Reason, from its source.
func reasons(t *testing.T) (all []scaling.Reason) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../scaling/endpoints.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != "Reason" {
			return true
		}
		for _, v := range spec.Values {
			if literal, ok := v.(*ast.BasicLit); ok {
				word, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, scaling.Reason(word))
			}
		}
		return true
	})
	if len(all) < 10 {
		t.Fatalf("found only %q", all)
	}
	return all
}

func TestEachReasonHasASentenceOfItsOwnAndNothingElseIsTold(t *testing.T) {
	p := newProxy(t)
	c := p.client(http1)
	ask := func(reason scaling.Reason) problem {
		p.gates.Publish(key, &scaling.View{Failure: &scaling.Failure{Reason: reason, Message: "password is 1234"}})
		resp, body := do(t, c, p.request(http.MethodGet, "/", nil))
		if resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "1234") {
			t.Errorf("%s: %s %s", reason, resp.Status, body)
		}
		return problemIn(t, resp, body)
	}
	docs, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]scaling.Reason{ask("Unheard").Detail: "Unheard"}
	for _, reason := range reasons(t) {
		got := ask(reason)
		if got.Reason != string(reason) {
			t.Errorf("%s: the word is %q", reason, got.Reason)
		}
		if before, ok := said[got.Detail]; ok {
			t.Errorf("%s and %s are told with the same sentence: %s", reason, before, got.Detail)
		}
		said[got.Detail] = reason
		if !strings.Contains(string(docs), "`"+string(reason)+"`") {
			t.Errorf("docs/api.md does not name %s", reason)
		}
	}
}
