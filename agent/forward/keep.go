package forward

import "time"

// spoolRetry is how long a spool that failed is left alone.
const spoolRetry = 30 * time.Second

// keep writes every payload to the spool as soon as it is queued, and ends, once
// stop is closed, when it has written what is left. Nobody waits for it: a disk
// that is slow, full or gone delays no delivery and no sample.
func (s *sender) keep(stop <-chan struct{}) {
	for {
		unsaved, retry := s.queue.unsaved, (<-chan time.Time)(nil)
		if !s.saveAll() {
			unsaved, retry = nil, time.After(spoolRetry)
		}
		select {
		case <-stop:
			s.saveAll()
			return
		case <-unsaved:
		case <-retry:
		}
	}
}

// saveAll writes what is in memory only. It reports whether the disk took it.
func (s *sender) saveAll() bool {
	if s.spool.Load() == nil && !s.open() {
		return false
	}
	sp := s.spool.Load()
	for e := s.queue.save(); e != nil; e = s.queue.save() {
		// While the intake answers, a file lives for the time of a request:
		// only what has to stay is worth a wait for the platter.
		if err := sp.write(e.file, e.body, s.failing()); err != nil {
			s.queue.notStored(e)
			s.metrics.spoolErrors.Inc()
			s.spoolFailed(err)
			return false
		}
		dropped, unwanted := s.queue.stored(e)
		if unwanted {
			s.unlink(e.file)
		}
		s.dropFiles(dropped)
		s.spoolWorks()
	}
	return true
}

// open takes the spool and queues what it holds. It reports whether it could.
func (s *sender) open() bool {
	sp, f, err := openSpool(s.dir)
	if err != nil {
		s.metrics.spoolErrors.Inc()
		s.spoolFailed(err)
		return false
	}
	s.spool.Store(sp)
	for _, torn := range f.torn {
		s.drop(torn, "spool_unreadable")
	}
	s.mu.Lock()
	s.status.foreign = f.foreign
	s.mu.Unlock()
	if len(f.entries) > 0 {
		s.log.Info("delivering what the spool holds first", "intake", s.name, "payloads", len(f.entries), "directory", s.dir)
	}
	s.dropFiles(s.queue.restore(f.entries))
	s.spoolWorks()
	return true
}

func (s *sender) dropFiles(entries []*entry) {
	for _, e := range entries {
		s.unlink(e.file)
		s.drop(e.file, "spool_full")
	}
}

func (s *sender) unlink(f file) {
	if err := s.spool.Load().remove(f); err != nil {
		s.metrics.spoolErrors.Inc()
		s.spoolFailed(err)
	}
}

// spoolFailed says once what is wrong, until the spool works again.
func (s *sender) spoolFailed(err error) {
	s.mu.Lock()
	said := s.status.spoolError != ""
	s.status.spoolError = err.Error()
	s.mu.Unlock()
	if !said {
		s.log.Error("no spool on disk: payloads wait in memory only, and a restart loses them", "intake", s.name, "error", err,
			"mend", "give the agent a directory of its own that it can write, with room (DD_FORWARDER_STORAGE_PATH, DD_FORWARDER_STORAGE_MAX_SIZE_IN_BYTES)")
	}
}

func (s *sender) spoolWorks() {
	s.mu.Lock()
	failed := s.status.spoolError != ""
	s.status.spoolError = ""
	s.mu.Unlock()
	if failed {
		s.log.Info("the spool works again", "intake", s.name, "directory", s.dir)
	}
}
