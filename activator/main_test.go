package activator_test

import (
	"os"
	"testing"

	"github.com/dormouse-dev/dormouse/activator"
	"github.com/dormouse-dev/dormouse/test/engine"
)

func TestMain(m *testing.M) { os.Exit(engine.Main(m)) }

// http1Engine is the engine of this run of the tests.
func http1Engine() activator.HTTP1Engine { return activator.HTTP1Engine(engine.Current()) }
