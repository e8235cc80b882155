// Package wire tests an [activator.Server] in this process by what is sent and received, with each engine for HTTP/1.1.
// test/feature does the same with the whole binary.
package wire

import (
	"os"
	"testing"

	"github.com/dormouse-dev/dormouse/test/engine"
)

func TestMain(m *testing.M) { os.Exit(engine.Main(m)) }
