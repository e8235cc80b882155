package trust

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

var errGone = errors.New("the API server is gone")

// reviewer answers as an API server does that takes its time. Tokens that begin with "good" are.
type reviewer struct {
	authenticationclient.TokenReviewInterface

	mu                   sync.Mutex // guards the following
	takes                time.Duration
	gone                 bool
	asked, running, most int
}

func (r *reviewer) Create(ctx context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.mu.Lock()
	r.asked++
	r.running++
	r.most = max(r.most, r.running)
	takes, gone := r.takes, r.gone
	r.mu.Unlock()
	defer func() { r.mu.Lock(); r.running--; r.mu.Unlock() }()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if gone {
		return nil, errGone
	}
	answer := review.DeepCopy()
	answer.Status.Authenticated = review.Spec.Token[:4] == "good"
	answer.Status.User.Username = review.Spec.Token
	return answer, nil
}

func TestAFloodOfOneTokenIsOneReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &reviewer{takes: time.Second}
		people := NewAuthenticator(api)
		leaver, leave := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := people.Who(leaver, "good", ""); !errors.Is(err, context.Canceled) {
				t.Errorf("who left was told %v", err)
			}
		})
		synctest.Wait()
		for range 1000 {
			callers.Go(func() {
				if user, err := people.Who(t.Context(), "good", ""); err != nil || user.Name != "good" {
					t.Errorf("got %+v, %v", user, err)
				}
			})
		}
		synctest.Wait()
		leave() // who asked first; the others wait for the answer still
		callers.Wait()
		if api.asked != 1 {
			t.Errorf("the API server was asked %d times, want once", api.asked)
		}
	})
}

func TestAnAnswerHoldsForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := new(reviewer)
		people := NewAuthenticator(api)
		for _, token := range []string{"good", "bad!"} {
			api.asked = 0
			for range 3 { // at 0, 6 and 12 seconds
				_, err := people.Who(t.Context(), token, "")
				if (err == nil) != (token == "good") {
					t.Errorf("%s: %v", token, err)
				}
				<-time.After(6 * time.Second)
			}
			if api.asked != 2 {
				t.Errorf("%s: the API server was asked %d times, want twice", token, api.asked)
			}
		}
	})
}

func TestWithoutTheAPIServerNobodyIsLetInAndNothingIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &reviewer{gone: true}
		people := NewAuthenticator(api)
		for range 3 {
			if user, err := people.Who(t.Context(), "good", ""); !errors.Is(err, errGone) || user.Name != "" {
				t.Errorf("got %+v, %v, want nobody", user, err)
			}
		}
		api.takes = time.Hour // it does not even answer
		began := time.Now()
		if _, err := people.Who(t.Context(), "good", ""); err == nil || errors.Is(err, ErrUnauthenticated) || time.Since(began) != maxReview {
			t.Errorf("got %v after %v, want no answer after %v", err, time.Since(began), maxReview)
		}
		api.gone, api.takes = false, 0
		if _, err := people.Who(t.Context(), "good", ""); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

func TestStrangersTakeNeitherMemoryNorTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := new(reviewer)
		people := NewAuthenticator(api)
		if _, err := people.Who(t.Context(), "good", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 3 * maxAnswers {
			_, _ = people.Who(t.Context(), fmt.Sprint("evil", i), "")
		}
		if n := len(people.reviews.refused.Keys()); n > maxAnswers {
			t.Errorf("%d refusals are remembered, want at most %d", n, maxAnswers)
		}
		asked := api.asked
		if _, err := people.Who(t.Context(), "good", ""); err != nil || api.asked != asked {
			t.Errorf("strangers have pushed out who is known: %v", err)
		}

		api.takes = time.Second
		var strangers sync.WaitGroup
		var mu sync.Mutex
		turnedAway := 0
		for i := range 2 * maxWaiting {
			strangers.Go(func() {
				if _, err := people.Who(t.Context(), fmt.Sprint("wait", i), ""); errors.Is(err, errTooMany) {
					mu.Lock()
					turnedAway++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		if api.most != maxRunning || turnedAway != maxWaiting {
			t.Errorf("%d reviews ran at once and %d callers were turned away, want %d and %d", api.most, turnedAway, maxRunning, maxWaiting)
		}
		strangers.Wait()
	})
}
