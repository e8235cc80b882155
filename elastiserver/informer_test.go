package elastiserver

import (
	"net/http"
	"strings"
	"testing"
)

func TestAnEventIsToldWhatCameOfIt(t *testing.T) {
	shop := serviceOf("web", "shop")
	w, server := online(t, shop)
	const event = `{"count":1,"svc":"shop","namespace":"web"}`
	for _, want := range []string{"a wake was started", "a wake under way was joined"} {
		var got Response
		ask(t, server, "POST", "/informer/incoming-request", event).decode(t, 200, &got)
		if got.Message != want {
			t.Errorf("the message is %q, want %q", got.Message, want)
		}
	}
	if got := w.fake.Scales(shop.Key); len(got) != 1 {
		t.Errorf("the service was scaled to %v, want once", got)
	}
}

func TestAnEventForAServiceThatIsAwakeIsNotNeeded(t *testing.T) {
	shop := serviceOf("web", "shop")
	shop.Replicas.Min = 1
	_, server := online(t, shop)
	var got Response
	ask(t, server, "POST", "/informer/incoming-request", `{"svc":"shop","namespace":"web"}`).decode(t, 200, &got)
	if want := "no wake was needed"; got.Message != want {
		t.Errorf("the message is %q, want %q", got.Message, want)
	}
}

func TestTheEventEndpointJudgesBodies(t *testing.T) {
	_, server := online(t, serviceOf("web", "shop"))
	for name, test := range map[string]struct {
		body   string
		status int
		field  string // at fault
	}{
		"whole":                     {`{"count":1,"svc":"shop","namespace":"web"}`, 200, ""},
		"without a count":           {`{"svc":"shop","namespace":"web"}`, 200, ""},
		"count of null":             {`{"count":null,"svc":"shop","namespace":"web"}`, 200, ""},
		"count of zero":             {`{"count":0,"svc":"shop","namespace":"web"}`, 200, ""},
		"spaces around":             {" \r\n\t{\"svc\":\"shop\",\"namespace\":\"web\"}\n", 200, ""},
		"a field that is not known": {`{"count":1,"svc":"shop","namespace":"web","path":["/"]}`, 200, ""},
		"64 KiB":                    {`{"svc":"shop","namespace":"web"}` + strings.Repeat(" ", maxBody-32), 200, ""},

		"empty":                  {``, 400, ""},
		"not JSON":               {`svc=shop`, 400, ""},
		"cut off":                {`{"count":1,"svc":"shop"`, 400, ""},
		"trailing garbage":       {`{"count":1,"svc":"shop","namespace":"web"} x`, 400, ""},
		"two events":             {`{"svc":"shop","namespace":"web"}{"svc":"shop","namespace":"web"}`, 400, ""},
		"a list":                 {`[{"svc":"shop","namespace":"web"}]`, 400, ""},
		"a string":               {`"shop"`, 400, ""},
		"null":                   {`null`, 400, "svc"},
		"no service":             {`{"count":1,"namespace":"web"}`, 400, "svc"},
		"empty service":          {`{"count":1,"svc":"","namespace":"web"}`, 400, "svc"},
		"service of null":        {`{"count":1,"svc":null,"namespace":"web"}`, 400, "svc"},
		"service is a number":    {`{"count":1,"svc":7,"namespace":"web"}`, 400, "svc"},
		"service is an object":   {`{"count":1,"svc":{},"namespace":"web"}`, 400, "svc"},
		"no namespace":           {`{"count":1,"svc":"shop"}`, 400, "namespace"},
		"namespace is true":      {`{"count":1,"svc":"shop","namespace":true}`, 400, "namespace"},
		"negative count":         {`{"count":-1,"svc":"shop","namespace":"web"}`, 400, "count"},
		"count is a string":      {`{"count":"1","svc":"shop","namespace":"web"}`, 400, "count"},
		"count is a fraction":    {`{"count":1.5,"svc":"shop","namespace":"web"}`, 400, "count"},
		"count beyond all":       {`{"count":1e400,"svc":"shop","namespace":"web"}`, 400, "count"},
		"a hundred thousand ['s": {strings.Repeat("[", 60_000), 400, ""},

		"unknown service":           {`{"count":1,"svc":"nobody","namespace":"web"}`, 404, ""},
		"unknown namespace":         {`{"count":1,"svc":"shop","namespace":"other"}`, 404, ""},
		"a name in another case":    {`{"count":1,"svc":"Shop","namespace":"web"}`, 404, ""},
		"a name with a slash":       {`{"count":1,"svc":"web/shop","namespace":"web"}`, 404, ""},
		"one byte more than 64 KiB": {`{"svc":"shop","namespace":"web"}` + strings.Repeat(" ", maxBody-31), 413, ""},
		"megabytes":                 {strings.Repeat("x", 4<<20), 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, server, "POST", "/informer/incoming-request", test.body)
			if test.status == http.StatusOK {
				a.decode(t, 200, &Response{})
				return
			}
			p := a.problem(t, test.status)
			if p.Field != test.field || !strings.Contains(p.Detail, test.field) {
				t.Errorf("the field at fault is %q, want %q; the detail is %q", p.Field, test.field, p.Detail)
			}
		})
	}
}
