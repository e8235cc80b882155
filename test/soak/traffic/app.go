package traffic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// App answers what the clients ask, as test/app does, and says the name in each answer. It is for tests that run an
// application of their own for each of many short-lived pods.
func App(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", sendBytes)
	mux.HandleFunc("POST /upload", takeUpload)
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("GET /ws", echoMessages)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App-Name", name)
		mux.ServeHTTP(w, r)
	})
}

func sendBytes(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	delay, _ := time.ParseDuration(query.Get("delay"))
	piece := []byte(strings.Repeat("x", 10<<10))
	for sent := 0; sent < n; sent += len(piece) {
		if sent > 0 && delay > 0 {
			_ = http.NewResponseController(w).Flush()
			pause(r.Context(), delay)
		}
		if _, err := w.Write(piece[:min(len(piece), n-sent)]); err != nil {
			return
		}
	}
}

func takeUpload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"sha256": hex.EncodeToString(hash.Sum(nil))})
}

func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err) // net/http's own can
	}
	_ = rc.Flush()
	buffer := make([]byte, 4<<10)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			_ = rc.Flush()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

func echoMessages(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any Origin
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}
