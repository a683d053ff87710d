package source

// calmCycles is how many cycles without a timeout let requests grow again.
const calmCycles = 10

// minChunk is the fewest queries that a request is made for by timeouts alone.
const minChunk = 4

// chunk returns how many queries a request may hold now.
func (p *Poller) chunk() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.size
}

// tooSlow notes that a request had no answer in time, and each of its queries
// alone had: it was too much at once.
func (p *Poller) tooSlow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size, p.calm = max(p.size/2, min(minChunk, p.opts.BatchSize)), 0
}

// inTime notes a cycle without timeouts.
func (p *Poller) inTime() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calm++; p.calm >= calmCycles && p.size < p.opts.BatchSize {
		p.size, p.calm = min(2*p.size, p.opts.BatchSize), 0
	}
}
