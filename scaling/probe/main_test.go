package probe

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain also shows that no probe leaves a goroutine, and with it a connection, behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
